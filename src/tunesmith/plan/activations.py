"""What one layer keeps of one token for the backward pass, in bytes, by architecture and by the types that it computes in.

Counted with saved-tensor hooks on transformers 5.23, torch 2.13 and peft 0.21 (distinct storages, sdpa attention, no dropout),
over random widths; the fits are exact for Llama, Qwen 2 and GPT-NeoX and within 0.1 % for the others; Gemma 2, which is computed
without sdpa, and bf16 and fp32 masters of what has norms on heads were not counted but inferred from their neighbours.
"""

from typing import Literal, NamedTuple

from tunesmith.plan.shapes import Shape

Regime = Literal["fp32", "amp", "bf16", "master"]
"""fp32: everything, as on a CPU. amp: weights in bf16, what trains in fp32 under autocast. bf16: everything, the pure kind.
master: all weights train in fp32 under autocast."""

BYTES: dict[Regime, int] = {"fp32": 4, "amp": 2, "bf16": 2, "master": 4}
"""Of one weight that is not quantized."""


class Kept(NamedTuple):
    """Bytes of a token and layer, for each unit of width."""

    hidden: float
    queries: float
    """Of heads x head_dim."""
    keys: float
    """Of key-value heads x head_dim."""
    feed_forward: float
    rank: float
    """Of each adapted layer's rank."""
    heads: float
    fixed: float


LLAMA: dict[tuple[Regime, bool], Kept] = {
    ("fp32", True): Kept(16, 8, 8, 16, 4, 4, 8),
    ("fp32", False): Kept(24, 8, 8, 16, 0, 4, 8),
    ("amp", True): Kept(18, 6, 4, 8, 2, 4, 8),
    ("bf16", True): Kept(12, 4, 4, 8, 2, 4, 8),
    ("bf16", False): Kept(16, 4, 4, 8, 0, 4, 8),
    ("master", False): Kept(26, 4, 4, 8, 0, 4, 8),
}
"""(Types, is it an adapter that trains?) -> bytes; so below. With frozen weights the inputs of the norms' products are not
kept."""

HEAD_NORMS: dict[tuple[Regime, bool], Kept] = {
    ("fp32", True): Kept(16, 12, 12, 16, 4, 9, 12),
    ("fp32", False): Kept(24, 16, 16, 16, 0, 9, 12),
    ("amp", True): Kept(18, 10, 8, 8, 2, 9, 12),
    ("bf16", True): Kept(12, 8, 8, 8, 2, 9, 12),
    ("bf16", False): Kept(16, 10, 10, 8, 0, 9, 12),
    ("master", False): Kept(26, 10, 10, 8, 0, 9, 12),
}
"""Qwen 3: norms on queries and keys."""

FOUR_NORMS: dict[tuple[Regime, bool], Kept] = {
    ("fp32", True): Kept(24, 12, 12, 16, 4, 9, 16),
    ("fp32", False): Kept(40, 16, 16, 16, 0, 9, 16),
    ("amp", True): Kept(26, 10, 8, 8, 2, 9, 16),
    ("bf16", True): Kept(20, 8, 8, 8, 2, 9, 16),
    ("bf16", False): Kept(36, 12, 12, 8, 0, 9, 16),
    ("master", False): Kept(46, 12, 12, 8, 0, 9, 16),
}
"""Gemma: as many again after attention and feed-forward."""

NEOX: dict[tuple[Regime, bool], Kept] = {
    ("fp32", True): Kept(40, 0, 0, 8, 4, 4, 16),
    ("fp32", False): Kept(40, 0, 0, 8, 0, 4, 16),
    ("amp", True): Kept(20, 0, 0, 4, 2, 4, 8),
    ("bf16", True): Kept(20, 0, 0, 4, 2, 4, 8),
    ("bf16", False): Kept(20, 0, 0, 4, 0, 4, 8),
    ("master", False): Kept(30, 0, 0, 4, 0, 4, 8),
}

KEPT: dict[str, dict[tuple[Regime, bool], Kept]] = {
    "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "mixtral": LLAMA, "qwen3": HEAD_NORMS, "qwen3_moe": HEAD_NORMS,
    "gemma2": FOUR_NORMS, "gemma3_text": FOUR_NORMS, "gpt_neox": NEOX,
}

EAGER = {"gemma2": 6}
"""Families that transformers computes without sdpa -> bytes kept of each head and pair of tokens: what grows with the square."""


def per_token(shape: Shape, regime: Regime, *, rank: int | None, adapted: int, length: int, dropped: int = 0) -> float:
    """Bytes that one layer keeps of one token of a row of `length`. `rank` is None when all weights train.

    `adapted` is the number of adapted linear layers of one block, `dropped` the widths of their inputs where an adapter has
    dropout: then each keeps its own copy and a mask (of a byte on a GPU, a number on a CPU) in place of the input that they
    share.
    """
    each = KEPT[shape.family][regime, rank is not None]
    kept = (
        each.hidden * shape.hidden
        + each.queries * shape.num_heads * shape.head_dim
        + each.keys * shape.num_kv_heads * shape.head_dim
        + each.feed_forward * shape.feed_forward
        + each.rank * (rank or 0) * adapted
        + each.heads * shape.num_heads
        + each.fixed
    )
    if dropped:
        shared = shape.hidden if shape.active_experts else 2 * shape.hidden + shape.feed_forward
        kept += dropped * (BYTES[regime] + (4 if regime == "fp32" else 1)) - BYTES[regime] * shared
    if shape.active_experts:
        kept += 2 * BYTES[regime] * shape.hidden * shape.active_experts
    return kept + EAGER.get(shape.family, 0) * (2 if regime == "fp32" else 1) * shape.num_heads * length


def checkpoint(shape: Shape, regime: Regime) -> int:
    """Bytes that a recomputed layer keeps of one token: its input."""
    return (4 if regime in ("fp32", "master") else 2) * shape.hidden
