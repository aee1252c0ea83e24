"""How the learning rate moves over a run: a pure function of the step, so it needs no state in a checkpoint."""

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def factor(step: int, total_steps: int, *, warmup_ratio: float, schedule: Schedule) -> float:
    """What the peak rate is multiplied by in step `step` (from 0). The first step already learns; the last one still does."""
    warmup_steps = math.ceil(warmup_ratio * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if schedule == "constant":
        return 1.0
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
