"""What names of models meant lately, so that few requests read the database for them. Knows neither tables nor shelves.

What this server writes is obeyed at once, for every write empties the memory; what another does, within half a second.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.serving.routing import Target

FRESH_SECONDS = 0.5
MAX_NAMES = 10_000


@dataclass(frozen=True)
class Meant:
    target: Target
    num_writes: int
    read_at: float


class Names:
    """Used from one event loop. Keys are a name and the project whose key asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._known: dict[tuple[str, str], Meant] = {}

    def get(self, model: str, project: str, num_writes: int) -> Target | None:
        """`num_writes` is the database's counter now."""
        known = self._known.get((model, project))
        if known is None or known.num_writes != num_writes or self._clock() - known.read_at > FRESH_SECONDS:
            return None
        return known.target

    def put(self, model: str, project: str, target: Target, num_writes: int) -> None:
        """`num_writes` is the database's counter before it was read."""
        if len(self._known) >= MAX_NAMES:
            self._known.clear()
        self._known[model, project] = Meant(target, num_writes, self._clock())

    def forget(self) -> None:
        self._known.clear()
