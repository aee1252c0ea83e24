"""A runner without torch: the next token is a function of the last one. The core and the scheduler run on it in milliseconds."""

from collections.abc import Callable

from tunesmith.engine.scheduler import Limits, Move, Step, Work
from tunesmith.engine.sequence import Output, Sampled, Sampling, Sequence, TokenLogprob
from tunesmith.engine.text import TextStream
from tunesmith.errors import EngineFailed
from tunesmith.models.artifact import AdapterInfo

END = 9


class NoAdapters:
    def __init__(self) -> None:
        self.removed: list[int] = []

    def add(self, info: AdapterInfo) -> int:
        raise AssertionError("no adapters here")

    def remove(self, serial: int) -> None:
        self.removed.append(serial)


class FakeRunner:
    """Counts up from the last token. Keeps a cache of its own, so that a wrong slot or a forgotten move shows."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.adapters = NoAdapters()
        self.steps: list[list[Work]] = []
        self.rows: dict[int, list[int]] = {}
        self.breaks_on: set[int] = set()
        """Ids of sequences on which a step breaks."""
        self.nan_on: set[int] = set()

    def run(self, step: Step, running: list[Sequence]) -> list[Sampled | None]:
        for copy in step.copies:
            assert isinstance(copy, Move)
            self.rows[copy.target] = list(self.rows.get(copy.source, []))
        if any(work.sequence.id in self.breaks_on for work in step.works):
            raise ValueError("broken")
        self.steps.append(list(step.works))
        answers: list[Sampled | None] = []
        for work in step.works:
            sequence, start, count = work
            assert sequence.slot is not None
            row = self.rows.get(sequence.slot, [])[:start] if start else []
            assert row == sequence.tokens[:start], "the cache holds another sequence"
            self.rows[sequence.slot] = row + sequence.tokens[start : start + count]
            token = sequence.tokens[start + count - 1] + 1
            if sequence.id in self.nan_on:
                answers.append(EngineFailed("no valid probabilities"))
            else:
                answers.append(TokenLogprob(token, -0.5) if work.is_last else None)
        return answers


def decode(tokens: list[int]) -> str:
    return "".join(chr(96 + token % 26) for token in tokens)


def make_sequence(
    id: int, prompt: list[int], max_tokens: int = 4, *, sink: Callable[[Output], None] = lambda output: None,
    stop: tuple[str, ...] = (), adapter: int | None = None, is_streamed: bool = False, end: int = END,
) -> Sequence:
    return Sequence(
        id=id, tokens=list(prompt), sampling=Sampling(max_tokens, stop=stop), sink=sink, text=TextStream(decode, stop),
        end_tokens=frozenset({end}), max_positions=10_000, adapter=adapter, is_streamed=is_streamed,
    )
