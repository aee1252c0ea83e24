"""Turns the rows of a data file, in any of nine shapes, into `Row`s; a row that cannot be used becomes a `Problem`.

Knows shapes and fields, but no tokenizer, no template and no torch, so the desk can check an upload with it. Nothing is
dropped: the rows and the problems together are the file.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.records import Record, open_records
from tunesmith.data.shapes import CONVERT, FIELDS, recognise
from tunesmith.errors import InvalidData
from tunesmith.types import Message

MAX_UNRECOGNISED = 100
"""Objects of unknown shape at a file's start after which auto gives up."""


@dataclass(frozen=True)
class Row:
    """One row that can be trained on. Which fields are set depends on the file's shape; `kind` is its name.

    chat, alpaca, sharegpt, question_answer: `messages`. prompt_completion: `prompt` and `completion`, plain text without a
    template; `messages` and `weights` if the file has messages there. preference: `messages` (the prompt), `chosen`,
    `rejected`. kto: `messages` with the answer last, `label`. reinforcement: `messages` (the prompt), `item`. text: `text`.
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


def read_rows(path: Path, format: str = "auto", map: dict[str, str] | None = None) -> ReadRows:
    """All rows of a file, and a problem for each that cannot be used. `map` is our field name -> the file's column.

    Raises NotFound, or InvalidData when the file as a whole cannot be read: it is empty, not JSON, of no known shape.
    """
    check_names(format, map or {})
    source = open_records(path)
    known = None if format == "auto" else format
    rows: list[Row] = []
    problems: list[Problem] = []
    waiting: list[Record] = []
    num_unknown = 0
    for record in source.rows:
        record = renamed(record, map or {})
        waiting.append(record)
        if known is None and record.value is not None:
            known = recognise(record.value)
            num_unknown += known is None
        if num_unknown >= MAX_UNRECOGNISED:
            break
        if known is not None:
            _convert(waiting, known, path.name, source.unit, rows, problems)
            waiting = []
    if any(record.value is not None for record in waiting):
        raise _unrecognised(path, waiting)
    _convert(waiting, "", path.name, source.unit, rows, problems)
    if not rows and not problems:
        raise InvalidData(f"{path.name} holds no rows.", hint="Write one row per line, such as {\"messages\": [...]}.")
    return ReadRows(rows, problems, known or "auto", source.unit)


def _convert(records: list[Record], kind: str, file: str, unit: str, rows: list[Row], problems: list[Problem]) -> None:
    """Adds each record to the rows or to the problems."""
    for record in records:
        if record.value is None:
            problems.append(Problem(file, record.line, record.reason, unit, record.check))
            continue
        try:
            rows.append(Row(line=record.line, kind=kind, **CONVERT[kind](record.value)))
        except InvalidData as error:
            check = "" if error.code == InvalidData.code else error.code
            problems.append(Problem(file, record.line, error.message, unit, check))


def check_names(format: str, map: dict[str, str]) -> None:
    """Raises InvalidData for a format or a field that we do not have."""
    if format != "auto" and format not in CONVERT:
        raise InvalidData(f"{format!r} is not a format.", hint=f"Formats are auto, {', '.join(CONVERT)}.", param="format")
    for name in map:
        if name not in FIELDS:
            raise InvalidData(f"{name!r} is not a field of ours.", hint=f"Fields are {', '.join(sorted(FIELDS))}.", param="map")


def renamed(record: Record, map: dict[str, str]) -> Record:
    """The record with our names of fields in place of the file's columns; a missing column is its reason."""
    if record.value is None or not map:
        return record
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
               row.item]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()[:16]


def question(row: Row) -> str:
    """What a row asks, as one string: rows that ask the same are kept on one side of a split."""
    if row.text is not None:
        return row.text
    if row.prompt is not None:
        return row.prompt
    last = max((n for n, message in enumerate(row.messages) if message["role"] == "assistant"), default=len(row.messages))
    asked = row.messages if row.chosen or row.kind == "reinforcement" else row.messages[:last]
    return json.dumps(asked, sort_keys=True)
