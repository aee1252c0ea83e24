"""Which sequences must be done by when. Knows no clock; it is told the time."""

from heapq import heapify, heappop, heappush

from tunesmith.engine.sequence import Sequence

MIN_SWEPT = 64


class Deadlines:
    """A heap by deadline. Sequences that have finished stay in it until they are the greater part."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Sequence]] = []
        self._sweep_at = MIN_SWEPT

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, sequence: Sequence) -> None:
        """Notes a sequence, if it has a deadline."""
        if sequence.deadline is None:
            return
        heappush(self._heap, (sequence.deadline, sequence.id, sequence))
        if len(self._heap) > self._sweep_at:
            self._heap = [each for each in self._heap if not each[2].is_finished]
            heapify(self._heap)
            self._sweep_at = max(MIN_SWEPT, 2 * len(self._heap))

    def passed(self, now: float) -> list[Sequence]:
        """Takes out the unfinished sequences whose deadline has come."""
        late: list[Sequence] = []
        while self._heap and self._heap[0][0] <= now:
            late.append(heappop(self._heap)[2])
        return [sequence for sequence in late if not sequence.is_finished]
