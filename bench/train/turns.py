"""A contestant's side of a measurement: it trains some steps when it is told to, tells how it went, and waits.

    {"steps": 2}  ->  {"losses": [...], "tokens": 1234, "seconds": 5.0, "processor_seconds": 9.1, "peak_bytes": 2000000000}

Knows no library of training: each peer runs this in an environment of its own.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

BATCH = 8
RATE, SEED, RANK, ALPHA = 2e-4, 42, 16, 32
"""The same for everybody: rows of a step, learning rate (constant, so that nobody's schedule matters), seed, LoRA."""
BETAS = (0.9, 0.99)


class Turns:
    """`step` is called after each optimizer step with its loss; it blocks until more steps are asked for."""

    def __init__(self, steps: list[list[dict[str, Any]]]):
        self.steps, self.done, self.losses = steps, 0, []
        self._left = 0

    def ready(self) -> None:
        _say({"ready": True})
        self._wait()

    def step(self, loss: float) -> None:
        self.losses.append(loss)
        self.done += 1
        self._left -= 1
        if self._left == 0:
            _say({
                "losses": self.losses[-self._asked :],
                "tokens": sum(len(row["ids"]) for step in self.steps[self.done - self._asked : self.done] for row in step),
                "seconds": time.perf_counter() - self._began,
                "processor_seconds": time.process_time() - self._processor,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            })
            if self.done < len(self.steps):
                self._wait()

    def _wait(self) -> None:
        self._asked = self._left = json.loads(sys.stdin.readline())["steps"]
        self._began, self._processor = time.perf_counter(), time.process_time()


def read(path: str) -> list[list[dict[str, Any]]]:
    """Steps of rows {"ids", "mask"}."""
    found: list[list[dict[str, Any]]] = json.loads(Path(path).read_text())
    return found


def _say(told: dict[str, Any]) -> None:
    print("TURN " + json.dumps(told), flush=True)
