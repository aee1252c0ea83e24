"""Decides what the next step computes: which sequences, which of their tokens. No torch, no clock, no I/O.

A step is either a prefill (prompts, in chunks) or a decode (one token of every sequence that is past its prompt); while both are
waiting they take turns, so that neither new requests nor running ones starve. Sequences lie in slots 0, 1, 2 ... without gaps:
when one leaves, the last moves into its place.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from tunesmith.engine.sequence import Sequence


@dataclass(frozen=True)
class Limits:
    max_sequences: int = 32
    """Rows of a decode step: beyond 32, a CPU gains nothing."""
    max_cache_tokens: int = 131_072
    """Size of the cache: rows times longest row, each rounded up to a power of two."""
    max_prefill_rows: int = 16
    max_prefill_tokens: int = 2_048
    """Rows times longest chunk of a prefill step."""
    max_chunk: int = 512
    """Longest piece of one prompt in a step, which bounds how long the others wait."""
    num_blocks: int = 0
    """Stored blocks of the prefix cache; 0 is no prefix cache."""
    max_waiting: int = 1_024
    """Sequences in the queue; more are turned away."""


class Work(NamedTuple):
    """Compute `count` tokens of a sequence from position `start` on."""

    sequence: Sequence
    start: int
    count: int

    @property
    def is_last(self) -> bool:
        """Does it reach the sequence's end, so that the next token can be sampled?"""
        return self.start + self.count == len(self.sequence.tokens)


class Move(NamedTuple):
    """The row of the cache in slot `source` goes to slot `target`."""

    source: int
    target: int


class Save(NamedTuple):
    """Positions [start, start + BLOCK * len(blocks)) of a row are copied into stored blocks."""

    slot: int
    start: int
    blocks: tuple[int, ...]


class Restore(NamedTuple):
    """Stored blocks are copied into a row, from position 0 on."""

    slot: int
    blocks: tuple[int, ...]


class SoftPrompt(NamedTuple):
    """Keys and values of an adapter's soft prompt are copied into a row, from position 0 on."""

    slot: int
    adapter: int


Copy = Move | Save | Restore | SoftPrompt


class Step(NamedTuple):
    """What to copy in the cache, in this order, and then what to compute."""

    copies: list[Copy]
    works: list[Work]


def power_of_two(number: int) -> int:
    """The smallest power of two that is not smaller."""
    return 1 << max(0, number - 1).bit_length()


class Scheduler:
    def __init__(self, limits: Limits):
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        """By slot."""
        self._copies: list[Copy] = []
        self._was_prefill = False

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes out a sequence that has finished or is not wanted any more."""
        if sequence.slot is None:
            if sequence in self.waiting:
                self.waiting.remove(sequence)
            return
        last = self.running.pop()
        if last is not sequence:
            self.running[sequence.slot] = last
            self._copies.append(Move(len(self.running), sequence.slot))
            last.slot = sequence.slot
        sequence.slot = None

    def schedule(self) -> Step:
        """The next step; without works when there is nothing to do. Its copies are handed out once."""
        works = self._choose()
        copies, self._copies = self._copies, []
        return Step(copies, works)

    def _choose(self) -> list[Work]:
        self._admit()
        prefill = [sequence for sequence in self.running if sequence.is_prefill]
        decode = [sequence for sequence in self.running if not sequence.is_prefill]
        if prefill and not (decode and self._was_prefill):
            self._was_prefill = True
            return self._prefill(prefill)
        self._was_prefill = False
        self._make_room()
        return [Work(s, s.num_cached, 1) for s in self.running if not s.is_prefill]

    def advance(self, works: list[Work]) -> None:
        """Notes that a step was computed: its tokens are in the cache."""
        for sequence, start, count in works:
            sequence.num_cached = start + count

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.limits.max_sequences:
            if self.running and not self._fits(len(self.running) + 1, len(self.waiting[0].tokens)):
                return
            sequence = self.waiting.popleft()
            sequence.slot = len(self.running)
            self.running.append(sequence)

    def _fits(self, num_rows: int, length: int) -> bool:
        longest = max([length, *(len(sequence.tokens) for sequence in self.running)])
        return power_of_two(num_rows) * power_of_two(longest) <= self.limits.max_cache_tokens

    def _make_room(self) -> None:
        """Preempts the sequences that came last until the rest fits; they wait at the head, and are computed anew."""
        while len(self.running) > 1 and not self._fits(len(self.running), 0):
            last = max(self.running, key=lambda sequence: sequence.id)
            self.remove(last)
            last.num_cached = 0
            last.prompt_logprobs.clear()
            self.waiting.appendleft(last)

    def _prefill(self, sequences: list[Sequence]) -> list[Work]:
        """Chunks of about equal length, so that little is padded; the oldest sequence always goes along."""
        chunk = {s.id: min(s.num_uncached, self.limits.max_chunk) for s in sequences}
        oldest = min(sequences, key=lambda s: s.id)
        near = sorted(sequences, key=lambda s: (abs(chunk[s.id] - chunk[oldest.id]), s.id))
        step: list[Work] = []
        longest = 0
        for sequence in near[: self.limits.max_prefill_rows]:
            longest = max(longest, chunk[sequence.id])
            if step and longest * (len(step) + 1) > self.limits.max_prefill_tokens:
                break
            step.append(Work(sequence, sequence.num_cached, chunk[sequence.id]))
        return step
