"""A lean forward of the Llama family: Llama, Mistral, Qwen2 (biases), Qwen3 (norms of queries and keys). Imports no transformers.

The same computation as the transformers modules in fewer calls: q, k, v and gate, up are one product each. It is used only where
its numbers were compared with the transformers module's (`build`). Names of axes as in `lean_parts`.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import silu

from tunesmith.engine.lean_parts import Attend, Attention, Decoder, Linears, Weights, pair_order
from tunesmith.engine.rope import KINDS, read_rope, rope_turns

FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
"""`model_type` of the configurations that are read here."""


class Norm:
    """x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019), as x * (w sqrt(n)) / sqrt(sum(x^2) + eps n): fewer calls."""

    def __init__(self, weight: torch.Tensor, eps: float):
        self._weight = weight * math.sqrt(len(weight))
        self._eps = eps * len(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * self._weight).mul_(length.square_().add_(self._eps).rsqrt_())


class Layer:
    """One decoder layer."""

    def __init__(self, name: str, weights: Weights, linears: Linears, eps: float, head_order: torch.Tensor):
        turned = (f"{name}.self_attn.q_proj", f"{name}.self_attn.k_proj")
        orders = {each: whole_order(head_order, len(weights[f"{each}.weight"])) for each in turned}

        def head_norm(leaf: str) -> Norm | None:
            weight = weights.get(f"{name}.self_attn.{leaf}.weight")
            return None if weight is None else Norm(weight[head_order], eps)

        self._head_size = len(head_order)
        self._num_q = len(orders[turned[0]]) // self._head_size
        self._num_k = len(orders[turned[1]]) // self._head_size
        self._input_norm = Norm(weights[f"{name}.input_layernorm.weight"], eps)
        self._qkv = linears.make(*turned, f"{name}.self_attn.v_proj", orders=orders)
        self._q_norm, self._k_norm = head_norm("q_norm"), head_norm("k_norm")
        self._o = linears.make(f"{name}.self_attn.o_proj")
        self._post_norm = Norm(weights[f"{name}.post_attention_layernorm.weight"], eps)
        self._gate_up = linears.make(f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj")
        self._down = linears.make(f"{name}.mlp.down_proj")

    def __call__(self, x: torch.Tensor, attend: Attend) -> torch.Tensor:
        heads = self._qkv(self._input_norm(x)).view(len(x), -1, self._head_size)
        if self._q_norm is not None and self._k_norm is not None:
            q, k, v = heads.split((self._num_q, self._num_k, self._num_k), 1)
            heads = torch.cat([self._q_norm(q), self._k_norm(k), v], 1)
        x = self._o(attend(heads)).add_(x)
        gate, up = self._gate_up(self._post_norm(x)).chunk(2, -1)
        return self._down(silu(gate).mul_(up)).add_(x)


class Lean(Decoder):
    """The model. `weights` have the names of the transformers module's state dict; the tied head may be missing."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, device: torch.device, *, quantize: str | None = None):
        num_heads = int(config["num_attention_heads"])
        head_size = int(config.get("head_dim") or config["hidden_size"] // num_heads)
        eps = float(config.get("rms_norm_eps", 1e-6))
        key_order = pair_order(head_size, head_size, device)
        embedding = weights["model.embed_tokens.weight"]
        linears = Linears({"lm_head.weight": embedding, **weights}, quantize)
        super().__init__(
            linears,
            embedding,
            [Layer(f"model.layers.{n}", weights, linears, eps, key_order) for n in range(int(config["num_hidden_layers"]))],
            Attention(
                num_heads=num_heads,
                num_kv_heads=int(config.get("num_key_value_heads") or num_heads),
                head_size=head_size,
                windows=windows(config),
                turns=rope_turns(read_rope(config), head_size, int(config["max_position_embeddings"])).to(device),
            ),
            Norm(weights["model.norm.weight"], eps),
            linears.make("lm_head"),
            key_order,
        )

    @staticmethod
    def fits(config: Mapping[str, Any]) -> bool:
        """Can it be tried? The comparison at load decides."""
        if config.get("model_type") not in FAMILIES or config.get("hidden_act", "silu") != "silu":
            return False
        return read_rope(config)["rope_type"] in KINDS


def whole_order(head_order: torch.Tensor, outputs: int) -> torch.Tensor:
    """The order within a head, for all heads."""
    return (torch.arange(0, outputs, len(head_order), device=head_order.device)[:, None] + head_order).flatten()


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
