"""How a step is cut so that it fits: tokens of a forward pass, and which layers compute their activations again.

The fastest cut that fits is taken: no recompute before some, long passes before short ones. Knows no price and no device but
its room.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from tunesmith.plan.memory import Phase, Step, training
from tunesmith.plan.shapes import Shape

Recompute = Literal["none", "all"] | int
LEVELS: tuple[Recompute, ...] = ("none", 4, 2, "all")
"""From fast to lean: 4 N, 4.5 N, 5 N and 6 N FLOPs a token for LoRA."""
SHORT = 4
"""A pass of a quarter of the wanted tokens is taken before layers are recomputed, a shorter one after."""


class Choice(NamedTuple):
    """A step that fits."""

    step: Step
    phases: list[Phase]


def passes(wanted: int, longest: int) -> list[int]:
    """Tokens of a forward pass to be tried: `wanted`, then halves of it, down to the longest row."""
    found = []
    while wanted > longest:
        found.append(wanted)
        wanted //= 2
    return [*found, longest]


def choose(
    shape: Shape, step: Step, fits: Callable[[list[Phase]], bool], *, tokens: list[int], levels: tuple[Recompute, ...] = LEVELS
) -> Choice | None:
    """The first cut of `step` that `fits`; `tokens` are the sizes of a pass that may be, from large to small. None: none of
    them does.

    The share of positions that is scored stays what it is in `step`.
    """
    share = step.scored / step.tokens
    enough = [each for each in tokens if each * SHORT >= tokens[0]]
    order = [(size, level) for level in levels for size in enough]
    order += [(size, level) for size in tokens if size not in enough for level in levels]
    for size, level in order:
        cut = replace(step, tokens=size, scored=max(1, round(share * size)), recompute=level)
        phases = training(shape, cut)
        if fits(phases):
            return Choice(cut, phases)
    return None


def leanest(shape: Shape, step: Step, *, tokens: list[int], levels: tuple[Recompute, ...] = LEVELS) -> Choice:
    """The cut that needs the least, to say how much that is."""
    share = step.scored / step.tokens
    cut = replace(step, tokens=tokens[-1], scored=max(1, round(share * tokens[-1])), recompute=levels[-1])
    return Choice(cut, training(shape, cut))
