"""The sequences that wait for a row, and whose turn it is. No torch, no clock, and no notion of what a row costs.

First come those that were preempted, the oldest first: they had their turn. Then interactive ones before batch ones, each in the
order in which they came; but while batch ones wait, one of every BATCH_TURN admissions is theirs, so that they do not starve.
"""

from bisect import insort
from collections.abc import Iterator

from tunesmith.engine.sequence import Priority, Sequence

BATCH_TURN = 8


class Waiting:
    def __init__(self) -> None:
        self._preempted: list[Sequence] = []
        self._lanes: dict[Priority, dict[Sequence, None]] = {"interactive": {}, "batch": {}}
        """Dicts as sets that keep their order."""
        self._passed_over = 0
        """Admissions since a batch sequence waits and had none."""

    def __len__(self) -> int:
        return len(self._preempted) + sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[Sequence]:
        """In the order of turns. Nothing may come or go meanwhile."""
        yield from self._preempted
        is_batch_turn = self._passed_over >= BATCH_TURN - 1
        yield from self._lanes["batch" if is_batch_turn else "interactive"]
        yield from self._lanes["interactive" if is_batch_turn else "batch"]

    def count(self, priority: Priority) -> int:
        """Those of a class that had no turn yet."""
        return len(self._lanes[priority])

    def add(self, sequence: Sequence) -> None:
        self._lanes[sequence.priority][sequence] = None

    def put_back(self, sequence: Sequence) -> None:
        """One that was preempted."""
        insort(self._preempted, sequence, key=lambda each: each.id)

    def remove(self, sequence: Sequence) -> None:
        """One that is not wanted any more; one that does not wait is left alone."""
        if sequence in self._preempted:
            self._preempted.remove(sequence)
        self._lanes[sequence.priority].pop(sequence, None)

    def admit(self, sequence: Sequence) -> None:
        """One whose turn has come."""
        is_batch = sequence in self._lanes["batch"]
        self.remove(sequence)
        self._passed_over = 0 if is_batch or not self._lanes["batch"] else self._passed_over + 1
