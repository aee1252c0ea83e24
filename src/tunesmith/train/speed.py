"""How fast a run goes: over the newest steps, without the time that evaluations and checkpoints take."""

import resource
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WINDOW_STEPS = 20


class Speed:
    """Counts tokens and seconds of the newest steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=WINDOW_STEPS)
        self.pauses: dict[str, float] = {}
        """What else took time -> how long it took the last time."""
        self.begin()

    def begin(self) -> None:
        self._since = time.perf_counter()

    def step(self, num_tokens: int) -> None:
        now = time.perf_counter()
        self._steps.append((now - self._since, num_tokens))
        self._since = now

    @contextmanager
    def paused(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.pauses[what] = time.perf_counter() - began
            self._since += self.pauses[what]

    @property
    def newest_seconds(self) -> float:
        """Of the newest step."""
        return self._steps[-1][0]

    @property
    def seconds_per_step(self) -> float:
        return sum(seconds for seconds, _ in self._steps) / max(1, len(self._steps))

    @property
    def tokens_per_second(self) -> float:
        return sum(tokens for _, tokens in self._steps) / max(1e-9, sum(seconds for seconds, _ in self._steps))


def memory_bytes() -> int:
    """The most memory that this process has held: the GPU's if it uses one, else resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
