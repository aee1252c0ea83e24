"""A lean forward of the Llama family: Llama, Mistral, Qwen2 (biases), Qwen3 (norms of queries and keys). Imports no transformers.

The same computation as the transformers modules in fewer calls: q, k, v and gate, up are one product each, tokens stand in one
line without padding, a decode step is one call of attention over all rows. Queries and keys are laid out so that the two numbers
that are turned against each other lie side by side: a complex number then, turned by one multiplication. It is used only where
its numbers were compared with the transformers module's (`build`). Names of axes: N tokens, H heads, D head size.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import embedding, scaled_dot_product_attention, silu

from tunesmith.engine.adapters import Grouping, Lora, Target
from tunesmith.engine.batch import Batch, Group, visible
from tunesmith.engine.cache import RowCache
from tunesmith.engine.int8 import Int8Weight
from tunesmith.engine.matmul import Weight, fastest

FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
"""`model_type` of the configurations that are read here."""

Weights = Mapping[str, torch.Tensor]


def is_lean(config: Mapping[str, Any]) -> bool:
    """Can it be tried? The comparison at load decides."""
    kind = _rope(config).get("rope_type", "default")
    if config.get("model_type") not in FAMILIES or config.get("hidden_act", "silu") != "silu":
        return False
    return kind in {"default", "linear", "llama3"}


class Linear:
    """y = x W^T + b, of one layer of the base or of several side by side, with the adapters' updates."""

    def __init__(
        self,
        names: list[str],
        weights: Weights,
        targets: dict[str, Target],
        grouping: Grouping,
        quantize: str | None,
        orders: Mapping[str, torch.Tensor],
    ):
        """`orders` has the order of outputs for those of `names` that do not keep it."""
        def ordered(name: str, tensor: torch.Tensor) -> torch.Tensor:
            return tensor[orders[name]] if name in orders else tensor

        parts = [ordered(name, weights[f"{name}.weight"]) for name in names]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        self._weight: Weight = Int8Weight(whole) if quantize == "int8" else fastest(whole)
        self._bias = None
        if any(f"{name}.bias" in weights for name in names):
            zeros = [part.new_zeros(len(part)) for part in parts]
            biases = [weights.get(f"{name}.bias", zero) for name, zero in zip(names, zeros, strict=True)]
            self._bias = torch.cat([ordered(name, bias) for name, bias in zip(names, biases, strict=True)])
        self._lora = Lora(grouping, len(whole))
        first = 0
        for name, part in zip(names, parts, strict=True):
            targets[name] = Target(self._lora, first, (len(part), part.shape[1]), orders.get(name))
            first += len(part)

    def __call__(self, x_NI: torch.Tensor) -> torch.Tensor:
        y_NO = self._weight(x_NI)
        if self._bias is not None:
            y_NO += self._bias
        return self._lora.apply(y_NO, x_NI)


class Norm:
    """x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019), as x * (w sqrt(n)) / sqrt(sum(x^2) + eps n): fewer calls."""

    def __init__(self, weight: torch.Tensor, eps: float):
        self._weight = weight * math.sqrt(len(weight))
        self._eps = eps * len(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * self._weight).mul_(length.square_().add_(self._eps).rsqrt_())


def whole_order(head_order: torch.Tensor, outputs: int) -> torch.Tensor:
    """The order within a head, for all heads."""
    return (torch.arange(0, outputs, len(head_order), device=head_order.device)[:, None] + head_order).flatten()


class Layer:
    """One decoder layer's weights."""

    def __init__(
        self,
        name: str,
        weights: Weights,
        targets: dict[str, Target],
        grouping: Grouping,
        quantize: str | None,
        eps: float,
        head_order: torch.Tensor,
    ):
        turned = (f"{name}.self_attn.q_proj", f"{name}.self_attn.k_proj")
        orders = {each: whole_order(head_order, len(weights[f"{each}.weight"])) for each in turned}

        def linear(*names: str) -> Linear:
            return Linear([f"{name}.{leaf}" for leaf in names], weights, targets, grouping, quantize, orders)

        def head_norm(leaf: str) -> Norm | None:
            weight = weights.get(f"{name}.self_attn.{leaf}.weight")
            return None if weight is None else Norm(weight[head_order], eps)

        self.input_norm = Norm(weights[f"{name}.input_layernorm.weight"], eps)
        self.qkv = linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.q_norm, self.k_norm = head_norm("q_norm"), head_norm("k_norm")
        self.o = linear("self_attn.o_proj")
        self.post_norm = Norm(weights[f"{name}.post_attention_layernorm.weight"], eps)
        self.gate_up = linear("mlp.gate_proj", "mlp.up_proj")
        self.down = linear("mlp.down_proj")


class Lean:
    """The model. `weights` have the names of the transformers module's state dict; the tied head may be missing."""

    def __init__(
        self, config: Mapping[str, Any], weights: Weights, device: torch.device, *, quantize: str | None = None
    ):
        self.device = device
        self.num_layers = int(config["num_hidden_layers"])
        self.vocab_size = int(config["vocab_size"])
        self.num_heads = int(config["num_attention_heads"])
        self.num_kv_heads = int(config.get("num_key_value_heads") or self.num_heads)
        self.head_size = int(config.get("head_dim") or config["hidden_size"] // self.num_heads)
        self.grouping = Grouping()
        eps = float(config.get("rms_norm_eps", 1e-6))
        self._embedding = weights["model.embed_tokens.weight"]
        self.dtype = self._embedding.dtype
        self._norm = Norm(weights["model.norm.weight"], eps)
        self.key_order = torch.arange(self.head_size, device=device).view(2, -1).t().flatten()
        self._targets: dict[str, Target] = {}
        self._layers = [
            Layer(f"model.layers.{n}", weights, self._targets, self.grouping, quantize, eps, self.key_order)
            for n in range(self.num_layers)
        ]
        head = {"lm_head.weight": self._embedding} | {k: weights[k] for k in ("lm_head.weight", "lm_head.bias") if k in weights}
        self._head = Linear(["lm_head"], head, self._targets, self.grouping, quantize, {})
        self._windows = windows(config)
        self._turns = _turns(config, self.head_size).to(device)

    def find(self, name: str) -> Target | None:
        return self._targets.get(name)

    def compute(
        self, batch: Batch, cache: RowCache, wanted_R: torch.Tensor, embeds_ND: torch.Tensor | None = None, hidden: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [R, V] of the wanted tokens of the line; with `hidden` also the last hidden states [N, width] of all."""
        self.grouping.set(batch.groups, batch.num_tokens)
        x = embedding(batch.ids_N, self._embedding) if embeds_ND is None else embeds_ND
        turns = self._turns[batch.positions_N][:, None]
        for number, layer in enumerate(self._layers):
            q, k, v = self._project(layer, layer.input_norm(x), turns)
            cache.write(number, batch.cells_N, k, v)
            x = layer.o(self._attend(batch, cache, number, q)).add_(x)
            gate, up = layer.gate_up(layer.post_norm(x)).chunk(2, -1)
            x = layer.down(silu(gate).mul_(up)).add_(x)
        x = self._norm(x)
        self.grouping.set(wanted_groups(batch, wanted_R), len(wanted_R))
        asked = x if len(wanted_R) == len(x) else x[wanted_R]
        return self._head(asked) if len(asked) else x.new_empty(0, self.vocab_size), x if hidden else None

    def _project(
        self, layer: Layer, x_NI: torch.Tensor, turns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys (both turned by their positions) and values [N, heads, head size]."""
        heads = layer.qkv(x_NI).view(x_NI.shape[0], -1, self.head_size)
        num_q, num_k = self.num_heads, self.num_kv_heads
        turned = heads[:, : num_q + num_k]
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = turned.split((num_q, num_k), 1)
            turned = torch.cat([layer.q_norm(q), layer.k_norm(k)], 1)
        # Su et al. 2021: a pair of numbers as a complex one, turned by its position's angle.
        pairs = torch.view_as_complex(turned.unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * turns).flatten(-2)
        return turned[:, :num_q], turned[:, num_q:], heads[:, num_q + num_k :]

    def _attend(self, batch: Batch, cache: RowCache, number: int, q_NHD: torch.Tensor) -> torch.Tensor:
        """[N, heads * head size]"""
        if batch.is_decode:
            return self._attend_decode(batch, cache, number, q_NHD)
        out = torch.empty(batch.num_tokens, self.num_heads * self.head_size, dtype=q_NHD.dtype, device=self.device)
        if batch.decode is not None:
            tokens = batch.decode.tokens
            out[tokens] = self._attend_decode(batch, cache, number, q_NHD[tokens])
        for first, row in batch.pieces:
            end = first + len(row.ids)
            out[first:end] = self._attend_piece(cache, number, q_NHD[first:end], row.slot, row.start)
        return out

    def _attend_decode(self, batch: Batch, cache: RowCache, number: int, q_BHD: torch.Tensor) -> torch.Tensor:
        """The queries that share a head of keys take the place of a query length: no head is copied."""
        at = batch.decode
        assert at is not None
        q = q_BHD if at.to_slots is None else q_BHD[at.to_slots]
        keys, values = cache.read(number, slice(at.num_rows), at.length)
        mask = at.mask(self._windows[number], q.dtype)
        out = scaled_dot_product_attention(q.reshape(at.num_rows, self.num_kv_heads, -1, self.head_size), keys, values, mask)
        out = out.reshape(at.num_rows, -1)
        return out if at.from_slots is None else out[at.from_slots]

    def _attend_piece(self, cache: RowCache, number: int, q_THD: torch.Tensor, slot: int, start: int) -> torch.Tensor:
        """A piece of one prompt: [T, heads * head size]."""
        count, window = len(q_THD), self._windows[number]
        keys, values = cache.read(number, slice(slot, slot + 1), start + count)
        mask = None
        if start > 0 or (window is not None and count > window):
            at = torch.arange(start + count, device=self.device)
            mask = visible(at, at[start:, None], window)
        q = q_THD.transpose(0, 1)[None]
        out = scaled_dot_product_attention(q, keys, values, mask, is_causal=mask is None, enable_gqa=True)
        return out[0].transpose(0, 1).reshape(count, -1)


def wanted_groups(batch: Batch, wanted_R: torch.Tensor) -> list[Group]:
    """The groups of the tokens that the head computes: `wanted` goes up, so they are slices again."""
    if not batch.groups or len(wanted_R) == batch.num_tokens:
        return batch.groups
    wanted = wanted_R.tolist()
    counted = [(g, sum(t < g.first for t in wanted), sum(t < g.end for t in wanted)) for g in batch.groups]
    return [group._replace(first=first, end=end) for group, first, end in counted if first < end]


def windows(config: Mapping[str, Any]) -> list[int | None]:
    """For each layer how many positions it sees, itself included; None is all."""
    count, size = int(config["num_hidden_layers"]), config.get("sliding_window")
    if config.get("model_type") == "mistral":
        return [size] * count
    if not config.get("use_sliding_window") or size is None:
        return [None] * count
    kinds = config.get("layer_types") or [
        "sliding_attention" if n >= config.get("max_window_layers", 28) else "full_attention" for n in range(count)
    ]
    return [size if kind == "sliding_attention" else None for kind in kinds]


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 writes `rope_parameters`; files from before have `rope_theta` and `rope_scaling`."""
    old = config.get("rope_scaling") or {}
    told = {"rope_theta": config.get("rope_theta", 10_000.0), **old, **(config.get("rope_parameters") or {})}
    return told | {"rope_type": told.get("rope_type", told.get("type", "default"))}


def _turns(config: Mapping[str, Any], head_size: int) -> torch.Tensor:
    """[positions, head size / 2] the complex numbers that turn by each position's angles."""
    rope = _rope(config)
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_size, 2, dtype=torch.float) / head_size)
    if rope["rope_type"] == "linear":
        frequencies = frequencies / rope["factor"]
    elif rope["rope_type"] == "llama3":
        frequencies = _llama3(frequencies, rope)
    angles = torch.arange(int(config["max_position_embeddings"])).float()[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def _llama3(frequencies: torch.Tensor, rope: Mapping[str, Any]) -> torch.Tensor:
    """Llama 3.1's: long waves are stretched by `factor`, short ones are not, those between partly."""
    wavelengths = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = ((rope["original_max_position_embeddings"] / wavelengths - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / rope["factor"] + kept * frequencies
