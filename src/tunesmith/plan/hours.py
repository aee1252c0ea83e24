"""How long work takes: FLOPs of a token by shape and method, and the share of a GPU's peak that is reached.

Pure arithmetic. The shares are calibrated on published runs (docs/plan.md); after 20 steps a run plans anew with its own
(`train/preflight.py`).
"""

from typing import Literal

from tunesmith.plan.gpus import Gpu
from tunesmith.plan.shapes import Shape

QLORA_CONSUMER = 0.85
"""Unpacking 4-bit weights on a card without much bandwidth: torchtune's 4090 makes 78 % of LoRA's tokens, its A100 98 %."""
SHARDED = 0.8
"""What is left of a GPU's speed when weights are gathered from its neighbours for each block: an assumption."""
PARALLEL = 0.95
"""The same where each GPU has the whole model, and only gradients travel: an assumption."""
DECODE_BANDWIDTH = 0.7
"""Share of the memory's bandwidth that decoding reaches (vLLM, 16 bits: 0.7 to 0.8)."""


def forward_flops(shape: Shape, length: float, *, scored: float = 1.0) -> float:
    """FLOPs of one token's forward pass in a row of `length`: 2 N, attention's (half of the square, for it is causal), the
    head's for the share `scored` of tokens."""
    seen = length / 2
    if shape.window:
        windowed = shape.num_windowed / shape.num_layers
        seen = (1 - windowed) * seen + windowed * min(seen, shape.window)
    attention = 4 * shape.num_layers * shape.num_heads * shape.head_dim * seen
    return 2 * shape.multiplied + attention + scored * 2 * shape.vocabulary * shape.hidden


def training_flops(
    shape: Shape, length: float, *, trained: int, all_weights: bool, recompute: Literal["none", "all"] | int = "none",
    references: int = 0, scored: float = 1.0,
) -> float:
    """FLOPs of one trained token: forward, backward to the activations, backward to the weights that train, what is recomputed,
    and `references` forward passes more (a preference method's base). LoRA: 4 N to 6 N; all weights: 6 N to 8 N."""
    forward = forward_flops(shape, length, scored=scored)
    again = {"none": 0.0, "all": 1.0}.get(str(recompute), 1 / recompute if isinstance(recompute, int) else 0.0)
    layers = forward - scored * 2 * shape.vocabulary * shape.hidden
    passes = (3 if all_weights else 2) + references
    return passes * forward + again * layers + (0 if all_weights else 6 * trained)


def utilisation(gpu: Gpu, *, quantization: str, gpus: int = 1, sharded: bool = False) -> float:
    """Share of the peak that is planned with."""
    share = gpu.utilisation
    if quantization != "none" and gpu.bandwidth_gb < 1100:
        share *= QLORA_CONSUMER
    if gpus > 1:
        share *= SHARDED if sharded else PARALLEL
    return share


def tokens_per_second(gpu: Gpu, flops_per_token: float, *, share: float, gpus: int = 1) -> float:
    return gpus * gpu.tflops * 1e12 * share / flops_per_token


def decode_tokens_per_second(gpu: Gpu, weight_bytes: int, cache_bytes: int, sequences: int, gpus: int = 1) -> float:
    """Of all sequences together: each step reads every weight and every cache once."""
    return sequences * gpus * gpu.bandwidth_gb * 1e9 * DECODE_BANDWIDTH / (weight_bytes + sequences * cache_bytes)
