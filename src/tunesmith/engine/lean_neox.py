"""A lean forward of GPT-NeoX (Black et al. 2022), which Pythia is. Imports no transformers.

Attention and the block after it read the same hidden state (`use_parallel_residual`), or one after the other; a part of each head
is turned by its position. It is used only where its numbers were compared with the transformers module's (`build`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.nn.functional import gelu, layer_norm

from tunesmith.engine.lean_parts import Attend, Attention, Decoder, Linears, Weights, pair_order
from tunesmith.engine.rope import KINDS, read_rope, rope_turns

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "gelu": gelu, **dict.fromkeys(("gelu_fast", "gelu_new", "gelu_pytorch_tanh"), partial(gelu, approximate="tanh")),
}
"""`hidden_act` of the configurations that are read here; the three are one formula."""


class Norm:
    """Layer normalisation (Ba et al. 2016)."""

    def __init__(self, name: str, weights: Weights, eps: float):
        self._weight, self._bias, self._eps = weights[f"{name}.weight"], weights[f"{name}.bias"], eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, self._weight.shape, self._weight, self._bias, self._eps)


class Layer:
    """One decoder layer."""

    def __init__(
        self, name: str, weights: Weights, linears: Linears, eps: float, head_order: torch.Tensor, act: Activation, parallel: bool
    ):
        self._head_size, self._act, self._parallel = len(head_order), act, parallel
        fused = f"{name}.attention.query_key_value"
        order = fused_order(head_order, len(weights[f"{fused}.weight"]))
        self._input_norm = Norm(f"{name}.input_layernorm", weights, eps)
        self._qkv = linears.make(fused, orders={fused: order})
        self._dense = linears.make(f"{name}.attention.dense")
        self._post_norm = Norm(f"{name}.post_attention_layernorm", weights, eps)
        self._up = linears.make(f"{name}.mlp.dense_h_to_4h")
        self._down = linears.make(f"{name}.mlp.dense_4h_to_h")

    def __call__(self, x: torch.Tensor, attend: Attend) -> torch.Tensor:
        heads = self._qkv(self._input_norm(x)).view(len(x), -1, self._head_size)
        attended = self._dense(attend(heads)).add_(x)
        read = x if self._parallel else attended
        return self._down(self._act(self._up(self._post_norm(read)))).add_(attended)


class LeanNeoX(Decoder):
    """The model. `weights` have the names of the files or of the transformers module's state dict; a tied head may be missing."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, device: torch.device, *, quantize: str | None = None):
        num_heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        head_size, rope = width // num_heads, neox_rope(config)
        turned = int(head_size * rope["partial_rotary_factor"])
        turns = rope_turns(rope, turned, int(config["max_position_embeddings"])).to(device)
        key_order = pair_order(head_size, 2 * turns.shape[1], device)
        eps = float(config.get("layer_norm_eps", 1e-5))
        act, parallel = ACTIVATIONS[config.get("hidden_act", "gelu")], bool(config.get("use_parallel_residual", True))
        embedding = weights["gpt_neox.embed_in.weight"]
        # Files say embed_out; transformers 5 and adapters that it trained say lm_head.
        linears = Linears({"lm_head.weight": weights.get("embed_out.weight", embedding), **weights}, quantize)
        super().__init__(
            linears,
            embedding,
            [
                Layer(f"gpt_neox.layers.{n}", weights, linears, eps, key_order, act, parallel)
                for n in range(int(config["num_hidden_layers"]))
            ],
            Attention(num_heads, num_heads, head_size, windows=[None] * int(config["num_hidden_layers"]), turns=turns),
            Norm("gpt_neox.final_layer_norm", weights, eps),
            linears.make("lm_head"),
            key_order,
        )

    @staticmethod
    def fits(config: Mapping[str, Any]) -> bool:
        """Can it be tried? The comparison at load decides."""
        if config.get("model_type") != "gpt_neox" or config.get("hidden_act", "gelu") not in ACTIVATIONS:
            return False
        return neox_rope(config)["rope_type"] in KINDS


def neox_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Files from before transformers 5 have names of their own: `rotary_emb_base` and `rotary_pct`."""
    old = {"rope_theta": config.get("rotary_emb_base", 10_000.0)}
    return {"partial_rotary_factor": config.get("rotary_pct", 0.25), **read_rope({**config, **old})}


def fused_order(head_order: torch.Tensor, outputs: int) -> torch.Tensor:
    """Stored are [heads, query | key | value, head size]; computed are all queries, all keys, all values."""
    size, device = len(head_order), head_order.device
    kinds = torch.stack([head_order, size + head_order, 2 * size + torch.arange(size, device=device)])
    return (torch.arange(0, outputs, 3 * size, device=device)[:, None] + kinds[:, None]).flatten()
