"""Asks a model many questions at once and scores the answers. Holds a Completer; which engine answers is not known here."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.completer import Completer
from tunesmith.data.skills import Item, generate
from tunesmith.errors import EngineFailed
from tunesmith.evals.metrics import Interval, exact_match, same_message, token_f1, wilson
from tunesmith.types import Message

Progress = Callable[[int], None]
"""Called with the number of answers that have come since the last call."""


@dataclass(frozen=True)
class Answer:
    """One question, its right answer, what the model said, and why it was not asked (`error`), if so."""

    messages: list[Message]
    right: Message
    message: Message
    error: str | None = None


@dataclass(frozen=True)
class Score:
    """A share of right answers out of `total`, with its 95 % interval."""

    passed: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.passed / self.total if self.total else 0.0

    @property
    def interval(self) -> Interval:
        return wilson(self.passed, self.total)

    def as_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "passed": self.passed, "total": self.total, "interval": list(self.interval)}


async def ask(
    completer: Completer,
    model: str,
    items: Sequence[Item],
    *,
    concurrency: int = 32,
    seed: int = 0,
    progress: Progress = lambda done: None,
    **sampling: Any,
) -> list[Answer]:
    """One answer to each item, in order. An item that the engine fails on is an answer with `error`, and scores 0.

    Item k samples with `seed` + k, so that a run can be repeated and no two items share their luck.
    """
    slots = asyncio.Semaphore(concurrency)

    async def one(number: int, item: Item) -> Answer:
        tools = {"tools": item.tools} if item.tools else {}
        async with slots:
            try:
                completion = await completer.complete(model, item.messages, seed=seed + number, **tools, **sampling)
                answer = Answer(item.messages, item.answer, completion.message)
            except EngineFailed as error:
                answer = Answer(item.messages, item.answer, {"role": "assistant", "content": ""}, error.message)
        progress(1)
        return answer

    return list(await asyncio.gather(*(one(number, item) for number, item in enumerate(items))))


async def measure_skills(
    completer: Completer,
    model: str,
    skills: Iterable[str],
    *,
    count: int,
    seed: int,
    progress: Progress = lambda done: None,
    **sampling: Any,
) -> dict[str, Score]:
    """Accuracy of each skill on `count` generated items; the same seed asks the same questions."""
    items = [item for skill in skills for item in generate(skill, count, seed)]
    answers = await ask(completer, model, items, seed=seed, progress=progress, max_tokens=64, **sampling)
    scores: dict[str, Score] = {}
    for item, answer in zip(items, answers, strict=True):
        old = scores.get(item.skill, Score(0, 0))
        scores[item.skill] = Score(old.passed + int(same_message(answer.message, answer.right)), old.total + 1)
    return scores


@dataclass(frozen=True)
class RowScores:
    """Means over the rows, 0 to 1."""

    exact_match: float
    token_f1: float
    total: int
    answers: list[Answer]

    def as_dict(self) -> dict[str, Any]:
        return {"exact_match": self.exact_match, "token_f1": self.token_f1, "total": self.total}


async def measure_rows(
    completer: Completer, model: str, items: Sequence[Item], *, progress: Progress = lambda done: None, **sampling: Any
) -> RowScores:
    """Exact match and token F1 of the answers to rows of a file."""
    answers = await ask(completer, model, items, progress=progress, **sampling)
    said = [(a.message.get("content") or "", a.right.get("content") or "") for a in answers]
    total = max(1, len(said))
    return RowScores(
        exact_match=sum(exact_match(*pair) for pair in said) / total,
        token_f1=sum(token_f1(*pair) for pair in said) / total,
        total=len(said),
        answers=answers,
    )
