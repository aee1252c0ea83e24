"""Says when a loss is no number any more or has exploded: the run then stops with advice, and its last checkpoint stays.

It is not tried again: the same steps with the same numbers would end the same way. Knows losses only.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import TrainingFailed

WINDOW_STEPS = 16


@dataclass
class Health:
    """The losses at a run's begin, and the newest ones."""

    learning_rate: float
    """The run's peak, for the advice."""
    first: list[float] = field(default_factory=list)
    newest: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_STEPS))

    def check(self, step: int, loss: float, grad_norm: float) -> None:
        """Called with each step's numbers. Raises TrainingFailed."""
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            raise self._failed(f"The loss is no number any more at step {step}.", "loss_not_finite")
        if len(self.first) < WINDOW_STEPS:
            self.first.append(loss)
            return
        self.newest.append(loss)
        if len(self.newest) == WINDOW_STEPS and _mean(self.newest) > 2 * _mean(self.first) + 1:
            what = f"{_mean(self.newest):.2f} over the newest {WINDOW_STEPS} steps, {_mean(self.first):.2f} over the first"
            raise self._failed(f"The loss has exploded at step {step}: {what}.", "loss_exploded")

    def state(self) -> dict[str, Any]:
        """For a checkpoint; `restore` takes it."""
        return {"first": self.first, "newest": list(self.newest)}

    def restore(self, state: dict[str, Any]) -> None:
        self.first = list(state["first"])
        self.newest.extend(state["newest"])

    def _failed(self, what: str, code: str) -> TrainingFailed:
        rate = self.learning_rate
        hint = f"Lower method.learning_rate (it was {rate:.1e}; try {rate / 3:.1e}) and start a new run; the checkpoints stay."
        return TrainingFailed(what, hint=hint, code=code)


def _mean(values: list[float] | deque[float]) -> float:
    return sum(values) / len(values)
