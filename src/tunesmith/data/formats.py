"""Turns the rows of a data file, in any of ten shapes, into `Row`s; a row that cannot be used becomes a `Problem`.

Knows shapes and fields, but no tokenizer, no template and no torch, so the desk can check an upload with it. Nothing is
dropped: the rows and the problems together are the file.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.placeholders import fill
from tunesmith.data.records import Record, open_records
from tunesmith.data.shapes import CONVERT, FIELDS, OPTIONAL, recognise
from tunesmith.data.turns import renamed_turns
from tunesmith.errors import InvalidData
from tunesmith.recipes.data import Reading
from tunesmith.types import Message

AS_IT_IS = Reading()

MAX_UNRECOGNISED = 100
"""Objects of unknown shape at a file's start after which auto gives up."""


@dataclass(frozen=True)
class Row:
    """One row that can be trained on. Which fields are set depends on the file's shape; `kind` is its name.

    chat, alpaca, sharegpt, question_answer: `messages`. prompt_completion: `prompt` and `completion`, plain text without a
    template; `messages` and `weights` if the file has messages there. preference: `messages` (the prompt), `chosen`,
    `rejected`. kto: `messages` with the answer last, `label`. reinforcement: `messages` (the prompt), `item`. text: `text`.
    segments: `segments`.
    A user's content is a list of parts where one of them is an image.
    """

    line: int
    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    weights: list[int] | None = None
    """0 or 1 for each message, where the file gives weights; None trains every assistant message."""
    prompt: str | None = None
    completion: str | None = None
    chosen: list[Message] = field(default_factory=list)
    rejected: list[Message] = field(default_factory=list)
    label: bool | None = None
    text: str | None = None
    item: dict[str, Any] = field(default_factory=dict)
    """What a grader sees of the row beside its messages."""
    segments: list[tuple[str, bool]] = field(default_factory=list)
    """Text that is rendered already, in pieces: does a piece train?"""
    kind: str = "chat"


@dataclass(frozen=True)
class Problem:
    """Why one row cannot be used. `unit` says whether `line` counts lines of the file or rows of a JSON list or Parquet.

    `check` is the name that OpenAI's cookbook has for the fault, such as missing_content, or empty.
    """

    file: str
    line: int
    reason: str
    unit: str = "line"
    check: str = ""

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line}: {self.reason}"


class ReadRows(NamedTuple):
    rows: list[Row]
    problems: list[Problem]
    format: str
    unit: str = "line"


class RowFile:
    """A file as its rows: iterating gives each row, in order, or why it cannot be used. `format` is known after the first row.

    Iterating raises NotFound, or InvalidData when the file as a whole cannot be read: it is empty, not JSON, of no known shape.
    """

    def __init__(self, path: Path, how: Reading = AS_IT_IS):
        check_names(how.map)
        self.path, self.how = path, how
        self.format: str = how.format
        self.unused = set(how.values)
        """Values for which no placeholder was found yet."""
        self._source = open_records(path)
        self.unit: str = self._source.unit

    def __iter__(self) -> Iterator["Row | Problem"]:
        waiting: list[Record] = []
        num_unknown = num_rows = 0
        for record in self._source.rows:
            record, num_rows = self._prepared(record), num_rows + 1
            waiting.append(record)
            if self.format == "auto" and record.value is not None:
                self.format = recognise(record.value) or "auto"
                num_unknown += self.format == "auto"
            if num_unknown >= MAX_UNRECOGNISED:
                break
            if self.format != "auto":
                yield from map(self._converted, waiting)
                waiting = []
        if any(record.value is not None for record in waiting):
            raise _unrecognised(self.path, waiting)
        yield from map(self._converted, waiting)
        if not num_rows:
            raise InvalidData(f"{self.path.name} holds no rows.", hint="Write one row per line, such as {\"messages\": [...]}.")

    def _prepared(self, record: Record) -> Record:
        """The record in our names, with the values of its placeholders."""
        record = renamed(record, self.how.map)
        if record.value is None:
            return record
        value = renamed_turns(record.value, dict(self.how.turns), dict(self.how.roles))
        if self.how.placeholders == "refuse" or self.how.values:
            value, found, missing = fill(value, self.how.values)
            self.unused -= found
            if missing and self.how.placeholders == "refuse":
                names = ", ".join(f"{{{{{name}}}}}" for name in sorted(missing))
                reason = f"It holds {names} and no value for it (data.values.{min(missing)})."
                return Record(record.line, None, reason, "placeholder")
        return Record(record.line, value)

    def _converted(self, record: Record) -> "Row | Problem":
        if record.value is None:
            return Problem(self.path.name, record.line, record.reason, self.unit, record.check)
        try:
            return Row(line=record.line, kind=self.format, **CONVERT[self.format](record.value))
        except InvalidData as error:
            check = "" if error.code == InvalidData.code else error.code
            return Problem(self.path.name, record.line, error.message, self.unit, check)


def read_rows(path: Path, how: Reading = AS_IT_IS) -> ReadRows:
    """All rows of a file, and a problem for each that cannot be used. Raises as `RowFile` does."""
    file = RowFile(path, how)
    found = list(file)
    rows, problems = [item for item in found if isinstance(item, Row)], [item for item in found if isinstance(item, Problem)]
    return ReadRows(rows, problems, file.format, file.unit)


def set_aside(problems: list[Problem]) -> dict[str, int]:
    """How many rows cannot be used, by reason, the most frequent first; numbers in a reason are the row's own, so they read N."""
    counts = Counter(re.sub(r"\d+", "N", problem.reason) for problem in problems)
    return dict(counts.most_common())


def check_names(map: dict[str, str]) -> None:
    """Raises InvalidData for a field that we do not have."""
    for name in map:
        if name not in FIELDS:
            raise InvalidData(f"{name!r} is not a field of ours.", hint=f"Fields are {', '.join(sorted(FIELDS))}.", param="map")


def renamed(record: Record, map: dict[str, str]) -> Record:
    """The record with our names of fields in place of the file's columns; a missing column that must be there is its reason."""
    if record.value is None or not map:
        return record
    map = {name: column for name, column in map.items() if column in record.value or name not in OPTIONAL}
    for name, column in map.items():
        if column not in record.value:
            return Record(record.line, None, f"There is no column {column}, which was mapped to {name}.")
    rest = {key: value for key, value in record.value.items() if key not in map.values()}
    return Record(record.line, rest | {name: record.value[column] for name, column in map.items()})


def _unrecognised(path: Path, waiting: list[Record]) -> InvalidData:
    names = ", ".join(next((sorted(map(str, record.value)) for record in waiting if record.value), []))
    return InvalidData(
        f"{path.name} has the fields {names[:200] or '(none)'}, which is no known shape.",
        hint="Name them, such as --map question=COLUMN --map answer=COLUMN; docs/data.md lists the shapes.",
        code="unknown_shape",
    )


def fingerprint(row: Row) -> bytes:
    """Equal for two rows of equal content, whatever their lines."""
    content = [row.messages, row.tools, row.weights, row.prompt, row.completion, row.chosen, row.rejected, row.label, row.text,
               row.item, row.segments]
    return _digest(json.dumps(content, sort_keys=True))


def question(row: Row) -> bytes:
    """Equal for two rows that ask the same, letter case, white space and a final mark aside: they stay on one side of a split."""
    return _digest(asked(row))


def asked(row: Row) -> str:
    """What a row asks, as one string."""
    if row.text is not None:
        return _plain(row.text)
    if row.segments:
        return "\n".join(_plain(text) for text, trains in row.segments if not trains)
    if row.prompt is not None:
        return _plain(row.prompt)
    last = max((n for n, message in enumerate(row.messages) if message["role"] == "assistant"), default=len(row.messages))
    before = row.messages if row.chosen or row.kind == "reinforcement" else row.messages[:last]
    return json.dumps([message | {"content": _plain(message["content"])} for message in before], sort_keys=True)


def _plain(content: Any) -> Any:
    return " ".join(content.casefold().split()).rstrip(".?! ") if isinstance(content, str) else content


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]
