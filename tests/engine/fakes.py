"""A runner without torch: the next token is a function of the last one. The core and the scheduler run on it in milliseconds.

It keeps rows and stored blocks as the real one does, but of what was computed instead of keys and values: a wrong slot, a
forgotten move, a stale block or another adapter's row shows at once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tunesmith.engine.blocks import BLOCK
from tunesmith.engine.prefixes import Restore, Save, SoftPrompt
from tunesmith.engine.scheduler import Copy, Limits, Move, Scheduler, Step, Work, power_of_two
from tunesmith.engine.sequence import VIRTUAL, Output, Sampled, Sampling, Sequence, TokenLogprob
from tunesmith.engine.text import TextStream
from tunesmith.errors import EngineFailed

if TYPE_CHECKING:
    from tunesmith.models.artifact import AdapterInfo

END = 9


class Cell(NamedTuple):
    """What was computed at one position of a row, and for whom."""

    token: int
    adapter: int | None
    root: bytes | None
    """None for virtual tokens: they depend on the adapter only."""


class FakeAdapters:
    def __init__(self) -> None:
        self.removed: list[int] = []
        self.virtual: dict[int, int] = {}
        """Serial -> positions of its soft prompt."""

    def add(self, info: "AdapterInfo") -> int:
        raise AssertionError("no adapters here")

    def remove(self, serial: int) -> None:
        self.removed.append(serial)

    def num_virtual(self, serial: int) -> int:
        return self.virtual.get(serial, 0)


class FakeRunner:
    """Counts up from the last token."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.adapters = FakeAdapters()
        self.steps: list[list[Work]] = []
        self.copies: list[Copy] = []
        """All that were made."""
        self.rows: dict[int, list[Cell]] = {}
        self.blocks: dict[int, list[Cell]] = {}
        """A stored block, with all that came before it."""
        self.breaks_on: set[int] = set()
        """Ids of sequences on which a step breaks."""
        self.nan_on: set[int] = set()
        self.breaks_on_copies = False
        self.before_step: Callable[[], None] = lambda: None

    def run(self, step: Step, running: list[Sequence]) -> list[Sampled | None]:
        self._copy(step.copies)
        if not step.works:
            return []
        self.before_step()
        longest = max(len(sequence.tokens) for sequence in running)
        assert power_of_two(len(running)) * power_of_two(longest) <= self.limits.max_cache_tokens, "the cache is too small"
        assert all(sequence.slot == slot for slot, sequence in enumerate(running)), "there is a gap"
        if any(work.sequence.id in self.breaks_on for work in step.works):
            raise ValueError("broken")
        self.steps.append(list(step.works))
        return [self._compute(work) for work in step.works]

    def _compute(self, work: Work) -> Sampled | None:
        sequence, start, count = work
        assert sequence.slot is not None
        assert 0 < count <= len(sequence.tokens) - start
        row = self.rows.get(sequence.slot, [])[:start] if start else []
        wanted = [cell_of(sequence, token) for token in sequence.tokens[: start + count]]
        assert row == wanted[:start], "the row holds another sequence"
        assert all(cell.token != VIRTUAL for cell in wanted[start:]), "a virtual token has nothing to compute"
        self.rows[sequence.slot] = wanted
        if sequence.id in self.nan_on:
            return EngineFailed("no valid probabilities")
        return TokenLogprob(sequence.tokens[-1] + 1, -0.5) if work.is_last else None

    def _copy(self, copies: list[Copy]) -> None:
        if copies and self.breaks_on_copies:
            raise MemoryError("no room")
        read: set[int] = set()
        written: set[int] = set()
        is_inward = [isinstance(copy, Restore | SoftPrompt) for copy in copies]
        assert is_inward == sorted(is_inward), "copies into rows come last"
        for copy in copies:
            if isinstance(copy, Move):
                self.rows[copy.target] = list(self.rows.get(copy.source, []))
            elif isinstance(copy, Save):
                row = self.rows[copy.slot]
                assert copy.start + BLOCK * len(copy.blocks) <= len(row), "more is saved than was computed"
                assert not read & set(copy.blocks), "a block is overwritten that this step reads"
                assert not written & set(copy.blocks), "a block is written twice"
                assert all(0 <= block < self.limits.num_blocks for block in copy.blocks)
                written.update(copy.blocks)
                for at, block in enumerate(copy.blocks, start=1):
                    self.blocks[block] = row[: copy.start + BLOCK * at]
            elif isinstance(copy, Restore):
                read.update(copy.blocks)
                row = self.blocks[copy.blocks[-1]]
                parts = [self.blocks[block] for block in copy.blocks]
                assert parts == [row[: BLOCK * at] for at in range(1, len(parts) + 1)], "the blocks do not follow each other"
                self.rows[copy.slot] = list(row)
            else:
                assert isinstance(copy, SoftPrompt)
                self.rows[copy.slot] = [Cell(VIRTUAL, copy.adapter, None)] * self.adapters.num_virtual(copy.adapter)
        self.copies += copies


def cell_of(sequence: Sequence, token: int) -> Cell:
    return Cell(token, sequence.adapter, None if token == VIRTUAL else sequence.cache_root)


def decode(tokens: list[int]) -> str:
    return "".join(chr(96 + token % 26) for token in tokens)


def make_sequence(
    id: int, prompt: list[int], max_tokens: int = 4, *, sink: Callable[[Output], None] = lambda output: None,
    stop: tuple[str, ...] = (), adapter: int | None = None, is_streamed: bool = False, end: int = END, root: bytes | None = None,
    num_virtual: int = 0, is_batch: bool = False, deadline: float | None = None, prompt_logprobs: bool = False,
    wants_embedding: bool = False,
) -> Sequence:
    """`num_virtual` virtual tokens stand before the prompt."""
    return Sequence(
        id=id, tokens=[VIRTUAL] * num_virtual + prompt, sampling=Sampling(max_tokens, stop=stop, prompt_logprobs=prompt_logprobs),
        sink=sink, text=TextStream(decode, stop), end_tokens=frozenset({end}), max_positions=10_000, adapter=adapter,
        is_streamed=is_streamed, cache_root=root, num_virtual=num_virtual, priority="batch" if is_batch else "interactive",
        deadline=deadline, wants_embedding=wants_embedding,
    )


class Runs(Protocol):
    def run(self, step: Step, running: list[Sequence]) -> list[Sampled | None]: ...


def play(scheduler: Scheduler, runner: Runs, steps: int = 10_000) -> None:
    """What the core does, without its thread: so many steps, or until there is nothing to do."""
    for _ in range(steps):
        copies, works = scheduler.schedule()
        runner.run(Step(copies, []), scheduler.running)
        if not works:
            return
        answers = runner.run(Step([], works), scheduler.running)
        scheduler.advance([work for work, answer in zip(works, answers, strict=True) if not isinstance(answer, EngineFailed)])
        for work, answer in zip(works, answers, strict=True):
            if isinstance(answer, EngineFailed):
                work.sequence.finish("error", answer)
            elif answer is not None:
                work.sequence.append(answer)
            if work.sequence.is_finished:
                scheduler.remove(work.sequence)
