"""How long the rest of a run takes, by what its own steps took; and at the end, what was foretold beside what came.

A step's seconds are a constant and so much for each FLOP, fitted to the first steps: rows of a step differ in length, and a small
model's steps are mostly overhead. Evaluations and saved states are counted by themselves. Knows no model but its shape.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tunesmith.plan.gpus import by_driver_name
from tunesmith.plan.hours import training_flops
from tunesmith.train.preflight import Dry, Planned

PLANNED_STEPS = 20
"""Steps after which the rest is foretold anew."""
WARM_UP = 2
"""First steps that are slower than others, and are not fitted to."""


def peak_flops() -> float:
    """Of this machine, per second: the GPU's by the table of datasheets, a CPU's by a small matrix product (a tenth of a
    second)."""
    if torch.cuda.is_available():
        gpu = by_driver_name(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory)
        return gpu.tflops * 1e12 if gpu else 0.0
    ones = torch.ones(768, 768)
    fastest = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        ones @ ones
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * 768**3 / fastest


def fit(costs: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Constant and slope, neither negative, of seconds by cost: least squares, or proportion where the costs tell too little."""
    mean_cost, mean_seconds = sum(costs) / len(costs), sum(seconds) / len(seconds)
    spread = sum((cost - mean_cost) ** 2 for cost in costs)
    if spread > 1e-6 * mean_cost**2:
        slope = sum((cost - mean_cost) * (each - mean_seconds) for cost, each in zip(costs, seconds, strict=True)) / spread
        constant = mean_seconds - slope * mean_cost
        if slope >= 0 and constant >= 0:
            return constant, slope
    return 0.0, mean_seconds / mean_cost


@dataclass
class Forecast:
    """The foretelling of one run. `at_step` is told each step's seconds, without evaluations and saving."""

    costs: list[float]
    """FLOPs of each step of the run, in order."""
    planned: Planned | None
    dry: Dry | None
    machine_flops: float
    usd_per_hour: float | None
    first_step: int = 0
    """Steps that were done before this attempt."""
    seconds: list[float] = field(default_factory=list)
    foretold: dict[str, Any] = field(default_factory=dict)
    _began: float = 0.0
    _foretold_at: float = 0.0

    def begin(self) -> None:
        """Now the first step begins."""
        self._began = time.perf_counter()

    def before(self) -> dict[str, Any]:
        """What is foretold before the first step: by the dry step's rate."""
        told: dict[str, Any] = {"memory_bytes": self.planned.bytes if self.planned else None}
        if self.dry is not None and self.planned is not None:
            flops = self.dry.tokens * _flops(self.planned, self.planned.step.length)
            told |= self._by_rate(flops / self.dry.seconds)
        self.foretold = told
        return told

    def _by_rate(self, rate: float) -> dict[str, Any]:
        hours = sum(self.costs) / rate / 3600
        return {"hours": hours, "utilisation": self._share(rate), "usd": self._usd(hours)}

    def _share(self, rate: float) -> float | None:
        return rate / self.machine_flops if self.machine_flops else None

    def _usd(self, hours: float) -> float | None:
        return None if self.usd_per_hour is None else hours * self.usd_per_hour

    def at_step(self, seconds: float, *, pauses_left: float) -> dict[str, Any] | None:
        """After the step with which the rest is foretold: seconds of the rest, `pauses_left` (evaluations, saving) included."""
        self.seconds.append(seconds)
        if len(self.seconds) != PLANNED_STEPS:
            return None
        done = self.costs[self.first_step : self.first_step + PLANNED_STEPS]
        constant, slope = fit(done[WARM_UP:], self.seconds[WARM_UP:])
        left = self.costs[self.first_step + PLANNED_STEPS :]
        rest = sum(constant + slope * cost for cost in left) + pauses_left
        self._foretold_at = time.perf_counter()
        self.foretold |= {"rest_seconds": rest, "rest_from_step": self.first_step + PLANNED_STEPS}
        return {"rest_seconds": rest, "utilisation": self._share(sum(done[WARM_UP:]) / sum(self.seconds[WARM_UP:]))}

    def reconciled(self, *, tokens: int, process_bytes: int) -> dict[str, Any]:
        """Foretold beside actual, called when the last step is done. Time is this attempt's, and memory the dry step's beside the
        whole process's; `tokens` are those of this attempt's steps."""
        working, now = sum(self.seconds), time.perf_counter()
        rate = sum(self.costs[self.first_step :]) / working if working else 0.0
        hours = (now - self._began) / 3600 if self._began else 0.0
        rest_seconds = now - self._foretold_at if self._foretold_at else None
        return {
            "foretold": self.foretold,
            "actual": {
                "memory_bytes": self.dry.peak_bytes if self.dry else None, "process_bytes": process_bytes,
                "tokens_per_second": tokens / working if working else None, "utilisation": self._share(rate), "hours": hours,
                "usd": self._usd(hours), "rest_seconds": rest_seconds,
            },
        }


def _flops(planned: Planned, length: float) -> float:
    step = planned.step
    return training_flops(
        planned.shape, length, trained=step.trained, all_weights=step.rank is None, recompute=step.recompute,
        scored=step.scored / step.tokens,
    )


def costs(steps: Sequence[Sequence[int]], lengths: Sequence[int], planned: Planned | None) -> list[float]:
    """FLOPs of each step; without a plan its tokens, which serve as well to foretell the rest. Padding is left out."""
    known: dict[int, float] = {}
    for length in set(lengths):
        known[length] = length * (_flops(planned, length) if planned else 1.0)
    return [sum(known[lengths[row]] for row in step) for step in steps]
