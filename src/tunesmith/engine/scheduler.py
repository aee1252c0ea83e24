"""Decides what the next step computes: which sequences, which of their tokens. No torch, no clock, no I/O.

A step is either a prefill (prompts, in chunks) or a decode (one token of every sequence that is past its prompt); while both are
waiting they take turns, so that neither new requests nor running ones starve. Sequences lie in slots 0, 1, 2 ... without gaps:
when one leaves, the last moves into its place.
"""

from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from tunesmith.engine.prefixes import Prefixes, Restore, Save, SoftPrompt
from tunesmith.engine.sequence import Sequence
from tunesmith.engine.waiting import BATCH_TURN, Waiting
from tunesmith.errors import ContextTooLong, InvalidRequest, Overloaded

MAX_LOOKED_AT = 64
"""Sequences that are looked at for an admission, when those before them wait for blocks."""


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
    """Sequences of one priority that wait beyond those that find a free row; more are turned away."""


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


Copy = Move | Save | Restore | SoftPrompt


class Step(NamedTuple):
    """What to copy in the cache, in this order, and then what to compute.

    Copies out of rows (Save, Move) come before copies into rows (Restore, SoftPrompt). The first may name slots beyond those that
    run, of sequences that have left; the others name slots that were not there before.
    """

    copies: list[Copy]
    works: list[Work]


def power_of_two(number: int) -> int:
    """The smallest power of two that is not smaller."""
    return 1 << max(0, number - 1).bit_length()


def is_behind(sequence: Sequence) -> bool:
    """Does it give way to interactive ones? Only until it was preempted: else it could be preempted again and again, for ever."""
    return sequence.priority == "batch" and not sequence.num_preemptions


class Scheduler:
    """Identity numbers of sequences grow with their arrival."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.waiting = Waiting()
        self.running: list[Sequence] = []
        """By slot."""
        self.prefixes = Prefixes(limits.num_blocks)
        self.num_prompt_tokens = 0
        """Of sequences that were admitted; virtual ones are not counted."""
        self.num_cached_prompt_tokens = 0
        self.num_preemptions = 0
        self._longest = 1 << (limits.max_cache_tokens.bit_length() - 1)
        """Tokens of the longest sequence that fits when it runs alone."""
        self._copies: list[Copy] = []
        self._may_admit = False
        """Has anything changed since the last admissions that could allow another?"""
        self._was_prefill = False
        self._num_prefills = 0

    @property
    def is_idle(self) -> bool:
        return not self.running and not len(self.waiting) and not self._copies

    def add(self, sequence: Sequence) -> None:
        """Takes a sequence in. Raises Overloaded, and ContextTooLong or InvalidRequest for one that can never be computed."""
        free = max(0, self.limits.max_sequences - len(self.running))
        if self.waiting.count(sequence.priority) >= self.limits.max_waiting + free:
            raise Overloaded(f"{self.limits.max_waiting} {sequence.priority} requests wait already.", hint="Ask again later.")
        if len(sequence.tokens) <= sequence.num_virtual:
            raise InvalidRequest("The prompt is empty.", hint="Send at least one token.")
        if len(sequence.tokens) > self._longest:
            message = f"The prompt has {len(sequence.tokens)} tokens, and the engine has room for {self._longest}."
            raise ContextTooLong(message, hint="Shorten it, or give the engine more memory.")
        sequence.max_positions = min(sequence.max_positions, self._longest)
        self.waiting.add(sequence)
        self._may_admit = True

    def remove(self, sequence: Sequence) -> None:
        """Takes out a sequence that has finished or is not wanted any more; what it has computed is saved, unless it failed."""
        self._may_admit = True
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self._note(self.prefixes.end(sequence))
        last = self.running.pop()
        if last is not sequence:
            self.running[sequence.slot] = last
            self._copies.append(Move(len(self.running), sequence.slot))
            last.slot = sequence.slot
        sequence.slot = None

    def schedule(self) -> Step:
        """The next step; without works when there is nothing to do. Its copies are handed out once."""
        self._make_room()
        if self._may_admit:
            self._admit()
        works = self._choose()
        copies, self._copies = self._copies, []
        self.prefixes.blocks.end_step()
        return Step(copies, works)

    def advance(self, works: list[Work]) -> None:
        """Notes that a step was computed: its tokens are in the cache."""
        for sequence, start, count in works:
            sequence.num_cached = start + count
            if sequence in self.prefixes.computing:
                self._note(self.prefixes.advance(sequence))
                self._may_admit = True

    def forget_cache(self) -> None:
        """Copies failed: what rows and blocks hold is not known, and nothing runs any more."""
        self._copies.clear()
        self.prefixes.blocks.clear()

    def _note(self, copy: Copy | None) -> None:
        if copy is not None:
            self._copies.append(copy)

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Gives rows to those whose turn it is, until the first that does not fit; those that wait for blocks are passed over."""
        self._may_admit = False
        put_off: set[Sequence] = set()
        while len(self.running) < self.limits.max_sequences:
            sequence = self._next(put_off)
            if sequence is None or (self.running and not self._fits(len(self.running) + 1, len(sequence.tokens))):
                return
            self.waiting.admit(sequence)
            self._begin(sequence)

    def _begin(self, sequence: Sequence) -> None:
        sequence.slot = len(self.running)
        self.running.append(sequence)
        self._note(self.prefixes.begin(sequence, sequence.slot))
        if not sequence.num_preemptions:
            sequence.num_cached_prompt = max(0, sequence.num_cached - sequence.num_virtual)
            self.num_prompt_tokens += sequence.num_prompt_tokens - sequence.num_virtual
            self.num_cached_prompt_tokens += sequence.num_cached_prompt

    def _next(self, put_off: set[Sequence]) -> Sequence | None:
        for sequence in islice(self.waiting, MAX_LOOKED_AT):
            if sequence not in put_off:
                if not self.prefixes.must_wait(sequence):
                    return sequence
                put_off.add(sequence)
        return None

    def _fits(self, num_rows: int, length: int) -> bool:
        """Do so many rows, the longest of the running and one of `length` tokens among them, fit into the cache?"""
        longest = max([length, *[len(sequence.tokens) for sequence in self.running]])
        return power_of_two(num_rows) * power_of_two(longest) <= self.limits.max_cache_tokens

    def _make_room(self) -> None:
        """Preempts until the rest fits: batch before interactive, then the last-come."""
        while len(self.running) > 1 and not self._fits(len(self.running), 0):
            last = max(self.running, key=lambda s: (is_behind(s), s.id))
            self.remove(last)
            last.restart()
            last.num_preemptions += 1
            self.num_preemptions += 1
            self.waiting.put_back(last)

    # -- works --------------------------------------------------------------------------------------------------------

    def _choose(self) -> list[Work]:
        prefill: list[Sequence] = []
        decode: list[Work] = []
        for sequence in self.running:
            start = sequence.num_cached
            if start and start + 1 == len(sequence.tokens):
                decode.append(Work(sequence, start, 1))
            else:
                prefill.append(sequence)
        self._was_prefill = bool(prefill) and not (decode and self._was_prefill)
        return self._prefill(prefill) if self._was_prefill else decode

    def _prefill(self, sequences: list[Sequence]) -> list[Work]:
        """Chunks of about equal length, so that little is padded. The oldest sequence always goes along: of the interactive ones,
        and at every BATCH_TURN-th time of all."""
        self._num_prefills += 1
        is_batch_turn = self._num_prefills % BATCH_TURN == 0
        oldest = min(sequences, key=lambda s: (is_behind(s) and not is_batch_turn, s.id))
        chunk = {s.id: min(s.num_uncached, self.limits.max_chunk) for s in sequences}
        near = sorted(sequences, key=lambda s: (abs(chunk[s.id] - chunk[oldest.id]), s is not oldest, s.id))
        step: list[Work] = []
        longest = 0
        for sequence in near[: self.limits.max_prefill_rows]:
            longest = max(longest, chunk[sequence.id])
            if step and longest * (len(step) + 1) > self.limits.max_prefill_tokens:
                break
            step.append(Work(sequence, sequence.num_cached, chunk[sequence.id]))
        return step
