"""Conversations to prove a model with: what training makes of a row, and what clients would send to get its answers.

Rows of a run, of a file, or made from the built-in skills. Knows no model and no engine.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunesmith.data.dataset import to_examples
from tunesmith.data.examples import Example, sides
from tunesmith.data.formats import Problem, Row, RowFile
from tunesmith.data.skills import BANDS, generate
from tunesmith.errors import InvalidData
from tunesmith.recipes.data import DataRecipe
from tunesmith.types import Message

NUM_CONVERSATIONS = 32
SKILL_SEED = 9_000_000
"""Of conversations made from the built-in skills; no training or evaluation draws from it."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """What the engine is asked to render, and the trained row that must begin with it."""

    body: dict[str, Any]
    """For /tokenize."""
    row: int
    """Place among the conversation's rows."""
    is_answered: bool
    """Does the row train from its end on? Not so for plain text, which trains from its start."""


@dataclass(frozen=True)
class Conversation:
    """One row of the data: the ids that training makes of it (two for a pair), and the prompts that serving will see."""

    rows: tuple[Ids, ...]
    masks: tuple[tuple[bool, ...], ...]
    """For each row which of its tokens train."""
    prompts: tuple[Prompt, ...]
    wholes: tuple[dict[str, Any], ...]
    """For each row what clients send to have it scored; none for plain text."""

    def begins_at(self, row: int, position: int) -> bool:
        """Does a trained stretch of the row begin there?"""
        mask = self.masks[row]
        return position < len(mask) and mask[position] and not mask[position - 1]


def of_run(data: DataRecipe, folder: Path, tokenizer: PreTrainedTokenizerBase, shown: Sequence[Example]) -> list[Conversation]:
    """The rows behind `shown`, examples of the run's files: held-out ones, or trained ones where none are held out.

    Raises InvalidData where none of them is there any more.
    """
    missing = {tuple(side.ids) for example in shown for side in sides(example)}
    found = []
    for conversation in _encoded(_rows(RowFile(folder / (data.validation or data.train), data)), tokenizer):
        if missing & set(conversation.rows):
            found.append(conversation)
            missing -= set(conversation.rows)
        if not missing:
            break
    if not found:
        raise InvalidData("The run's files do not hold the rows that were trained on any more.", hint="Put them back.")
    return found


def of_file(path: Path, tokenizer: PreTrainedTokenizerBase, count: int, max_positions: int) -> list[Conversation]:
    """The first rows of a file that fit. Raises InvalidData where there is none."""
    found = list(_fitting(_encoded(_rows(RowFile(path)), tokenizer), count, max_positions))
    if not found:
        raise InvalidData(f"{path} has no row that can be rendered.", hint=f"`tunesmith data check {path}` says why.")
    return found


def of_skills(tokenizer: PreTrainedTokenizerBase, count: int, max_positions: int) -> list[Conversation]:
    """Made from the built-in skills, some of each."""
    each = math.ceil(count / len(BANDS["kept"]))
    items = [item for skill in BANDS["kept"] for item in generate(skill, each, SKILL_SEED)]
    rows = (Row(line=0, messages=[*item.messages, item.answer], tools=item.tools) for item in items)
    return list(_fitting(_encoded(rows, tokenizer), count, max_positions))


def _rows(source: Iterable[Row | Problem]) -> Iterator[Row]:
    return (item for item in source if isinstance(item, Row))


def _encoded(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase) -> Iterator[Conversation]:
    for row in rows:
        try:
            encoded = [side for example in to_examples(tokenizer, row) for side in sides(example)]
        except InvalidData:  # training set it aside too
            continue
        ids, masks = tuple(tuple(each.ids) for each in encoded), tuple(tuple(each.loss_mask) for each in encoded)
        yield Conversation(ids, masks, tuple(_prompts(row, len(encoded))), tuple(_wholes(row, len(encoded))))


def _fitting(found: Iterator[Conversation], count: int, max_positions: int) -> Iterator[Conversation]:
    for conversation in found:
        if max(map(len, conversation.rows)) <= max_positions:
            yield conversation
            count -= 1
        if not count:
            return


def _prompts(row: Row, num_rows: int) -> Iterator[Prompt]:
    """What clients would send to get the trained answers."""
    if row.segments:
        return
    if not row.messages:
        text = row.text if row.text is not None else row.prompt or ""
        yield Prompt({"prompt": text}, 0, is_answered=row.completion is not None)
        return
    if row.kind == "preference":
        for side in range(num_rows):
            yield Prompt(_chat(row.messages, row.tools), side, is_answered=True)
        return
    for number, n in enumerate(_trained(row)):
        if n:
            yield Prompt(_chat(row.messages[:n], row.tools), number if num_rows > 1 else 0, is_answered=True)


def _trained(row: Row) -> list[int]:
    """Places of the answers that train."""
    last = len(row.messages) - 1
    weights = [int(n == last) for n in range(last + 1)] if row.kind == "kto" else row.weights
    return [n for n, message in enumerate(row.messages) if message["role"] == "assistant" and (weights is None or weights[n])]


def _wholes(row: Row, num_rows: int) -> Iterator[dict[str, Any]]:
    if row.kind == "preference":
        yield from (_chat(row.messages + answer, row.tools) for answer in (row.chosen, row.rejected))
    elif row.messages:
        ends = _trained(row) if num_rows > 1 else [len(row.messages) - 1]
        yield from (_chat(row.messages[: n + 1], row.tools) for n in ends)


def _chat(messages: list[Message], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """As clients send it: a call's arguments as JSON text."""
    sent = []
    for message in messages:
        calls = [
            call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
            for call in message.get("tool_calls", ())
        ]
        sent.append(message | ({"tool_calls": calls} if calls else {}))
    return {"messages": sent, "tools": tools}
