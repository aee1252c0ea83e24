"""What a training step or an engine holds on one device, in bytes: a sum of parts for each phase; the peak is the largest
phase.

Arithmetic on a shape. Knows no GPU, no price and no torch. Checked against torch's own count of live tensors (docs/results.md)
and against torchtune's published measurements (docs/plan.md).
"""

import math
from dataclasses import dataclass
from typing import Literal

from tunesmith.plan.activations import BYTES, Regime, checkpoint, per_token
from tunesmith.plan.shapes import Shape

Quant = Literal["none", "int8", "nf4"]
Head = Literal["sliced", "columns", "whole", "chunked", "compiled", "fused"]
"""How logits and loss are computed. sliced: of a slice of the scored positions at a time (`train/head.py`). columns: of all of
them at once. whole: transformers' own loss, on all positions. chunked: all bf16 logits, an eighth of them at a time in fp32.
compiled: the same, compiled into one pass. fused: a tile of logits at a time (TRL)."""

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""A weight's share: 4 bits, an 8-bit scale per 64 weights, a 32-bit scale per 256 of those (Dettmers et al. 2023)."""
ADAM_BYTES = {"adamw": 8, "adamw_8bit": 2 + 8 / 256, "paged_adamw_8bit": 2 + 8 / 256}
"""Moments of one fp32 parameter; of a bf16 one plain AdamW's are half of that."""
SLICE = 2**23
"""Logits of one slice of `train/head.py`, at most."""
TILE_BYTES = 3 * 4096 * 32768 * 4
"""TRL's fused head: logits, their exponentials and their gradient for 4,096 positions by 32,768 words."""
CONTEXT_BYTES = 1024**3
"""A GPU's own: the CUDA context and the libraries' workspaces (0.3 to 0.6 GiB), and a rest for what nobody counted."""
FRAGMENTS = 1.08
"""A GPU's allocator needs up to this share more than what is alive."""


@dataclass(frozen=True)
class Phase:
    """What is held at one moment of a step."""

    name: str
    parts: dict[str, int]
    """Bytes by what they are for: weights, adapter, gradients, optimizer, activations, logits, workspace, cache."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Step:
    """One forward and backward pass and an optimizer step on one device."""

    tokens: int
    """Of one forward pass, padding included."""
    length: int
    """Of its longest row."""
    scored: int
    """Positions whose logits are computed."""
    regime: Regime = "amp"
    quantization: Quant = "none"
    trained: int = 0
    """Parameters that train; all of them when `rank` is None and it is no soft prompt."""
    rank: int | None = 16
    """Of the adapter; 0 for a soft prompt; None when all weights train."""
    adapted: int = 7
    """Adapted linear layers of one block."""
    dropped: int = 0
    """Widths of their inputs together, if the adapter has dropout."""
    optimizer: str = "adamw"
    recompute: Literal["none", "all"] | int = "none"
    """Layers whose activations are computed again: none, every n-th, all."""
    head: Head = "fused"
    offload: bool = False
    """What recomputed layers keep waits in the host's memory."""
    sharded: int = 1
    """Devices that weights, gradients and moments are spread over (FSDP)."""
    accumulates: bool = False
    """Gradients of earlier micro-batches are there while the next one goes forward."""
    fused_backward: bool = False
    """The optimizer steps within the backward pass, so that gradients never live together."""


def weights(shape: Shape, quantization: Quant, regime: Regime) -> int:
    """Bytes of the base: linear layers as they are quantized, the rest (embedding, head, norms, experts) in the regime's type."""
    rest = shape.num_parameters - shape.quantizable
    if quantization == "none":
        return shape.num_parameters * BYTES[regime]
    if quantization == "int8":
        scales = 4 * shape.num_layers * sum(each.outputs for each in shape.linears)
        return shape.quantizable + scales + rest * BYTES[regime]
    return math.ceil(shape.quantizable * NF4_BITS / 8) + rest * BYTES[regime]


def training(shape: Shape, step: Step) -> list[Phase]:
    """The phases of a step in which optimizer states exist: forward, backward, optimizer."""
    held = _held(shape, step)
    gradients = step.trained * _trained_bytes(step) // step.sharded
    if step.fused_backward:
        gradients //= shape.num_layers
    before = gradients if step.accumulates else 0
    kept, one_layer = _activations(shape, step)
    logits, head_gradient = _head(shape, step)
    space = _workspace(shape, step)
    last = max(one_layer, (kept + one_layer) // shape.num_layers)
    # A tied matrix has the head's gradient when the embedding's comes, which is made whole and then added.
    twice = shape.embedding * _trained_bytes(step) // step.sharded if shape.is_tied and step.rank is None else 0
    embedding = [Phase("embedding", held | {"gradients": gradients, "workspace": twice})] if twice else []
    return [
        Phase("loss", held | {"activations": kept, "logits": logits, "gradients": max(before, head_gradient)}),
        Phase("backward begins", held | {
            "activations": kept + one_layer, "gradients": max(before, head_gradient), "workspace": space,
        }),
        Phase("backward ends", held | {"activations": last, "gradients": gradients, "workspace": space}),
        *embedding,
        Phase("optimizer step", held | {"gradients": gradients}),
    ]


def peak(phases: list[Phase]) -> Phase:
    return max(phases, key=lambda phase: phase.total)


def needed(phases: list[Phase], *, on_gpu: bool = True) -> int:
    """Bytes that a device must have: the peak, and on a GPU its allocator's and its driver's share."""
    most = peak(phases).total
    return math.ceil(most * FRAGMENTS) + CONTEXT_BYTES if on_gpu else most


def serving(shape: Shape, quantization: Quant, *, tokens: int, sequences: int = 1, bytes_each: int = 2) -> list[Phase]:
    """What an engine holds, over all its devices together: weights, and the caches of `sequences` of `tokens`. `bytes_each` is
    4 in fp32."""
    regime: Regime = "fp32" if bytes_each == 4 else "bf16"
    cache = sequences * shape.kv_bytes(tokens, bytes_each)
    return [Phase("serving", {"weights": weights(shape, quantization, regime), "cache": cache})]


def cache_tokens(shape: Shape, quantization: Quant, room: int, *, bytes_each: int = 2) -> int:
    """Tokens whose keys and values fit beside the weights into `room` bytes; 0 if the weights alone do not."""
    regime: Regime = "fp32" if bytes_each == 4 else "bf16"
    left = room - weights(shape, quantization, regime)
    return max(0, left // (shape.kv_bytes(1, bytes_each)))


def _trained_bytes(step: Step) -> int:
    return 2 if step.regime == "bf16" else 4


def _held(shape: Shape, step: Step) -> dict[str, int]:
    """What is there in every phase: the base, the adapter, the optimizer's moments."""
    base = weights(shape, step.quantization, step.regime) // step.sharded
    each = _trained_bytes(step)
    moments = step.trained * ADAM_BYTES[step.optimizer]
    if step.optimizer == "adamw":
        moments *= each / 4
    held = {"weights": base, "optimizer": math.ceil(moments / step.sharded)}
    if step.rank is not None:
        # Under autocast each fp32 matrix is kept in bf16 as well until the backward pass has used it.
        copies = 2 if step.regime == "amp" else 0
        held["adapter"] = step.trained * (each + copies) // step.sharded
    elif step.regime == "master":
        held["weights"] += shape.quantizable * 2 // step.sharded
    if step.sharded > 1:
        # The block that computes is gathered whole, and the next one while it does.
        held["weights"] += 2 * base * step.sharded // shape.num_layers
    return held


def _activations(shape: Shape, step: Step) -> tuple[int, int]:
    """Bytes kept for the backward pass by all layers, and by the one layer that is recomputed (0 where none is)."""
    full = math.ceil(step.tokens * per_token(
        shape, step.regime, rank=step.rank, adapted=step.adapted, dropped=step.dropped, length=step.length
    ))
    again = 0 if step.recompute == "none" else shape.num_layers
    if isinstance(step.recompute, int):
        again = shape.num_layers // step.recompute
    inputs = 0 if step.offload else again * step.tokens * checkpoint(shape, step.regime)
    return (shape.num_layers - again) * full + inputs, full if again else 0


def _head(shape: Shape, step: Step) -> tuple[int, int]:
    """Bytes of logits and loss at their worst, and of the head's gradient, where the head trains."""
    cells = step.scored * shape.vocabulary
    sliced = min(cells, max(SLICE, 16 * shape.vocabulary))
    trains = step.rank is None
    logits = {
        "sliced": (16 if trains else 4) * sliced, "columns": 12 * cells, "whole": 14 * cells, "chunked": 7 * cells // 2,
        "compiled": 5 * cells // 2, "fused": min(14 * cells, TILE_BYTES),
    }[step.head]
    in_pieces = step.head in ("sliced", "fused") and cells > sliced
    gradient = shape.embedding * _trained_bytes(step) // step.sharded if trains and in_pieces and not step.fused_backward else 0
    return logits + step.scored * shape.hidden * BYTES[step.regime], gradient


def _workspace(shape: Shape, step: Step) -> int:
    """What the backward pass of one layer makes and drops, two gradients of the feed-forward's width and one of the stream's,
    and the widest layer's weights, unpacked. In 16 bits the allocator's share covers the former: torchtune's figures are met
    without it."""
    unpacked = 0 if step.quantization == "none" else shape.largest_linear * BYTES[step.regime]
    passing = step.tokens * 4 * (2 * shape.feed_forward + shape.hidden) if step.regime == "fp32" else 0
    return unpacked + passing
