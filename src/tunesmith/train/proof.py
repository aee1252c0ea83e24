"""Proof that what is served is what was trained: conversations through the trainer's model, and through an engine that is asked.

Both must see the same token ids, give the same log-probability to each of them, and the engine must say the same of an answer
while it makes it as of the same answer read back. Knows no engine: it asks an `Upstream`, whoever started it.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from tunesmith.errors import InvalidRequest, TrainingFailed
from tunesmith.models.catalog import Base
from tunesmith.serving.upstream import Adapter, Upstream
from tunesmith.store import write_atomically
from tunesmith.train.conversations import Conversation, Ids
from tunesmith.train.saved import saved_otherwise

T = TypeVar("T")
NUM_ANSWER_TOKENS = 8
"""Of each conversation's answer that the engine makes and then reads back."""
CHUNK = 512
"""Positions whose log-probabilities are made at once: all of a long row over a wide vocabulary would be gigabytes."""
RECORD = "proof.json"


class Bounds(NamedTuple):
    """How far log-probabilities may be apart, in nats."""

    mean: float
    worst: float
    spread: float
    """Where rounding itself is large, the worst may be so many times the mean instead."""

    def most(self, mean: float) -> float:
        """The worst that is let pass beside this mean."""
        return max(self.worst, self.spread * mean)


BOUNDS = {torch.float32: Bounds(2e-5, 1e-4, 100), torch.bfloat16: Bounds(2e-3, 0.05, 25)}
"""A token that the base finds very unlikely has a log-probability that float32 itself rounds by more than 1e-4: transformers in
float32 and in float64 were 1.5e-4 apart at worst and 8e-6 in the mean, on English text and the built-in base, which knows none. A
fault moves the mean (docs/decisions/0010)."""


class ServedDiffers(TrainingFailed):
    """What is served is not what was trained."""

    code = "served_differs"


@dataclass(frozen=True)
class Proof:
    """How far what is served is from what was trained; JSON-like."""

    conversations: int
    prompts: int
    """Rendered by both, to the same ids."""
    tokens: int
    """Whose log-probabilities were compared."""
    mean: float
    """Mean distance of log-probabilities, in nats."""
    worst: float
    answer_tokens: int
    answer_worst: float
    """Distance between what the engine said of its own answers while it made them, and what it says when it reads them."""
    dtype: str


@dataclass(frozen=True)
class ScoreProof:
    """The same of a reward model: one score for each whole conversation."""

    conversations: int
    rows: int
    """Rendered by both to the same ids, and scored."""
    mean: float
    """Mean distance of scores."""
    worst: float
    dtype: str


def check(
    model: torch.nn.Module, base: Base, adapter: Adapter | None, conversations: Sequence[Conversation], upstream: Upstream,
    device: str, *, num_virtual: int = 0,
) -> Proof:
    """Asks both, and stops the engine. Raises ServedDiffers, and EngineFailed or Busy where there is no engine to ask.

    `num_virtual` are the positions of the adapter's soft prompt.
    """
    trained = trained_logprobs(model, conversations, device)
    with explained(model, adapter):
        asker = Asker(upstream, base.id, adapter, base.max_positions - num_virtual)
        return compare(conversations, trained, asker.all(conversations, asker.conversation), dtype_on(device))


@contextmanager
def explained(model: torch.nn.Module, adapter: Adapter | None) -> Iterator[None]:
    """Adds to a ServedDiffers where the adapter's folder does not hold what the model has."""
    try:
        yield
    except ServedDiffers as error:
        reason = saved_otherwise(model, Path(adapter.path)) if adapter is not None else ""
        raise ServedDiffers(f"{error.message} {reason}".strip(), hint=error.hint) from error


def dtype_on(device: str) -> torch.dtype:
    """What both compute in."""
    return torch.float32 if device == "cpu" else torch.bfloat16


# -- the trainer's side -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def trained_logprobs(model: torch.nn.Module, conversations: Sequence[Conversation], device: str) -> list[list[float]]:
    """For each row of each conversation the log-probability of every token but the first, by the model that training has.

    The model is left in the mode that it was in.
    """
    was_training = model.training
    model.eval()
    found = [_logprobs(model, row, device) for conversation in conversations for row in conversation.rows]
    model.train(was_training)
    return found


def _logprobs(model: torch.nn.Module, ids: Ids, device: str) -> list[float]:
    ids_1T = torch.tensor([ids], device=device)
    # A soft prompt's virtual tokens may have logits of their own, before those of the row.
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, -len(ids) :]
    found: list[float] = []
    for start in range(0, len(ids) - 1, CHUNK):
        end = min(start + CHUNK, len(ids) - 1)
        scores = logits_TV[start:end].float().log_softmax(-1)
        found += scores.gather(1, ids_1T[0, start + 1 : end + 1, None])[:, 0].tolist()
    return found


# -- the engine's side ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """What the engine says of one conversation."""

    prompts: list[list[int]]
    logprobs: list[list[float]]
    """Of each row."""
    answers: list[tuple[list[float], list[float]]]
    """Of each row's first prompt: log-probabilities of the engine's answer, as it made it, and as it reads it."""


class Asker:
    """Asks an upstream, and stops it."""

    def __init__(self, upstream: Upstream, model: str, adapter: Adapter | None, max_positions: int):
        self._upstream, self._model, self._adapter, self._max_positions = upstream, model, adapter, max_positions

    def all(self, conversations: Sequence[Conversation], ask: Callable[[Conversation], Awaitable[T]]) -> list[T]:
        """What `ask` finds of each. Raises ServedDiffers where the adapter is refused, EngineFailed where there is no engine."""

        async def run() -> list[T]:
            try:
                await self._start()
                return list(await asyncio.gather(*map(ask, conversations)))
            finally:
                await self._upstream.stop()

        return asyncio.run(run())

    async def _start(self) -> None:
        await self._upstream.start()
        try:
            if self._adapter is not None:
                await self._upstream.ensure_adapter(self._adapter)
        except InvalidRequest as error:
            raise ServedDiffers(f"The engine refuses what was saved: {error}") from error

    async def conversation(self, conversation: Conversation) -> Served:
        prompts = [(await self.ask("/tokenize", prompt.body))["tokens"] for prompt in conversation.prompts]
        logprobs = [await self._read(row) for row in conversation.rows]
        first = {prompt.row: ids for prompt, ids in reversed(list(zip(conversation.prompts, prompts, strict=True)))}
        return Served(prompts, logprobs, [await self._answer(ids) for ids in first.values()])

    async def _read(self, ids: Sequence[int]) -> list[float]:
        body = await self.ask("/v1/completions", {"prompt": list(ids), "max_tokens": 0, "echo": True, "logprobs": 0})
        return list(body["choices"][0]["logprobs"]["token_logprobs"][1:])

    async def _answer(self, ids: list[int]) -> tuple[list[float], list[float]]:
        """The likeliest tokens after a prompt: what is said of them as they come, and when they are read."""
        room = min(NUM_ANSWER_TOKENS, self._max_positions - len(ids))
        if room < 1:
            return [], []
        asked = {"prompt": ids, "max_tokens": room, "temperature": 0, "logprobs": 0, "return_token_ids": True}
        choice = (await self.ask("/v1/completions", asked))["choices"][0]
        made = list(choice["logprobs"]["token_logprobs"])
        whole = await self._read(ids + choice["token_ids"][: len(made)])
        return made, whole[len(ids) - 1 :]

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The answer's JSON. Raises ServedDiffers for a refusal."""
        answer = await self._upstream.ask(path, body | {"model": self._model}, self._adapter)
        told = json.loads(await answer.read())
        if answer.status >= 400:
            message = told.get("error", {}).get("message", answer.status)
            raise ServedDiffers(f"The engine cannot answer what was trained: {message}")
        return told


# -- the comparison ---------------------------------------------------------------------------------------------------------


def compare(
    conversations: Sequence[Conversation], trained: Sequence[list[float]], found: Sequence[Served], dtype: torch.dtype
) -> Proof:
    """Raises ServedDiffers with what differs most."""
    for number, (conversation, told) in enumerate(zip(conversations, found, strict=True), start=1):
        _compare_ids(number, conversation, told.prompts)
    places = [(number, row) for number, each in enumerate(conversations, start=1) for row in each.rows]
    said = [logprobs for told in found for logprobs in told.logprobs]
    apart = [
        (distance(mine, theirs), number, position + 1)
        for (number, _), mine_T, theirs_T in zip(places, trained, said, strict=True)
        for position, (mine, theirs) in enumerate(zip(mine_T, theirs_T, strict=True))
    ]
    bounds = BOUNDS[dtype]
    worst, number, position = max(apart)
    mean = sum(distance for distance, _, _ in apart) / len(apart)
    if worst > bounds.most(mean) or mean > bounds.mean:
        raise ServedDiffers(
            f"What is served differs from what was trained: log-probabilities are {mean:.2g} nats apart in the mean (at most "
            f"{bounds.mean:g}) and {worst:.2g} at worst (at most {bounds.most(mean):.2g}), at token {position} of "
            f"conversation {number}."
        )
    answers = [distance(*pair) for told in found for made, read in told.answers for pair in zip(made, read, strict=True)]
    if max(answers, default=0.0) > bounds.most(mean):
        raise ServedDiffers(
            f"The engine's answers are not what it says of them afterwards: {max(answers):.2g} nats apart (at most "
            f"{bounds.most(mean):.2g}).",
            hint="This is a fault of the engine; please report it.",
        )
    return Proof(
        len(conversations), sum(len(told.prompts) for told in found), len(apart), mean, worst, len(answers),
        max(answers, default=0.0), str(dtype).removeprefix("torch."),
    )


def distance(one: float, other: float) -> float:
    """In nats; infinite where one is no number."""
    found = abs(one - other)
    return found if found == found else math.inf


def _compare_ids(number: int, conversation: Conversation, prompts: Sequence[list[int]]) -> None:
    for prompt, ids in zip(conversation.prompts, prompts, strict=True):
        row = conversation.rows[prompt.row]
        differs = (n for n, (mine, theirs) in enumerate(zip(row, ids, strict=False)) if mine != theirs)
        same = next(differs, min(len(row), len(ids)))
        if same < len(ids):
            trained = f"id {row[same]}" if same < len(row) else "nothing"
            raise ServedDiffers(
                f"Conversation {number} is rendered otherwise when it is served: token {same + 1} is id {ids[same]}, and was "
                f"{trained} in training.",
                hint="Was the base's chat template or tokenizer changed?",
            )
        if prompt.is_answered and not conversation.begins_at(prompt.row, len(ids)):
            raise ServedDiffers(
                f"Conversation {number} is rendered otherwise when it is served: the answer begins after {len(ids)} tokens, and "
                "not where training began to learn.",
                hint="Was the base's chat template changed?",
            )


def write(folder: Path, proof: Proof | ScoreProof) -> dict[str, Any]:
    """Puts the proof beside the adapter; the same as JSON."""
    told = asdict(proof)
    write_atomically(folder / RECORD, json.dumps(told, indent=1).encode())
    return told
