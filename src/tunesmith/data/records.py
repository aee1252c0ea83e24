"""Opens a JSON, JSONL, CSV or Parquet file as numbered records. Knows nothing of what the fields mean, nor of torch.

A record that cannot be read carries the reason in place of a value, so that whoever reads on can report it. A file that
cannot be read at all raises InvalidData. JSONL and CSV are streamed and numbered by line, JSON arrays and Parquet by row.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pyarrow
import pyarrow.parquet

from tunesmith.errors import InvalidData, NotFound

BOM = b"\xef\xbb\xbf"
OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")
MAX_CELL = 2**31 - 1
"""Characters of the longest CSV cell; Python's own limit is 131,072, which a long answer may pass."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""How a data file's name may end, where it has an end."""

Kind = Literal["jsonl", "json", "csv", "parquet"]


class Record(NamedTuple):
    """`value` is the object at line or row `line`, or None, and then `reason` is a sentence that says why."""

    line: int
    value: dict[str, Any] | None
    reason: str = ""
    check: str = ""
    """The name that OpenAI's cookbook has for the fault."""


class Records(NamedTuple):
    unit: Literal["line", "row"]
    rows: Iterator[Record]


def open_records(path: Path) -> Records:
    """The file's records, in order; of a folder, those of its files by name, counted through.

    Raises NotFound, or InvalidData for an empty file or one that is not what it seems.
    """
    if path.is_dir():
        return Records("row", _folder(path))
    kind = file_kind(path)
    if kind == "jsonl":
        return Records("line", _jsonl(path))
    if kind == "csv":
        return Records("line", _csv(path))
    return Records("row", _json(path) if kind == "json" else _parquet(path))


def _folder(path: Path) -> Iterator[Record]:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InvalidData(f"The folder {path.name} has no data files.", hint=f"They end with {', '.join(SUFFIXES)}.")
    row = 0
    for file in files:
        for record in open_records(file).rows:
            row += 1
            yield record._replace(line=row)


def file_kind(path: Path) -> Kind:
    """How to read a file, from its name and first bytes, for uploads may have no suffix. Raises as `open_records` does."""
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", hint="Check the path.")
    with open(path, "rb") as file:
        head = file.read(4)
        if head == b"PAR1":
            return "parquet"
        if head.startswith(OTHER_BOMS):
            raise InvalidData(f"{path.name} is UTF-16.", hint="Save it as UTF-8.")
        file.seek(len(BOM) if head.startswith(BOM) else 0)
        first = _first_line(file)
    if not first:
        raise InvalidData(f"{path.name} is empty.", hint="Write one row per line, such as {\"messages\": [...]}.")
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        return "csv"
    if suffix == ".parquet":
        raise InvalidData(f"{path.name} is not a Parquet file: it does not begin with PAR1.", hint="Write it again.")
    return _json_kind(path, suffix, first)


def _first_line(file: BinaryIO) -> bytes:
    """The first line that holds more than white space, stripped; empty if there is none."""
    return next((line.strip() for line in file if not line.isspace()), b"")


def _json_kind(path: Path, suffix: str, first: bytes) -> Kind:
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        lines = suffix in {".jsonl", ".ndjson"} and first[:1] != b"["
        if not lines and suffix not in {".json", ".jsonl", ".ndjson"} and first[:1] not in {b"[", b"{"}:
            raise InvalidData(
                f"{path.name} is not a kind of file that can be read.", hint="Use .jsonl, .json, .csv or .parquet."
            ) from None
        return "jsonl" if lines or (first[:1] == b"{" and suffix != ".json" and len(first) > 1) else "json"
    whole = isinstance(value, list) and (suffix not in {".jsonl", ".ndjson"} or (len(value) > 0 and isinstance(value[0], dict)))
    return "json" if whole else "jsonl"


def _checked(line: int, value: Any, *, surrogates: bool) -> Record:
    """The record of one parsed value; `surrogates` says that the text had escapes which may be half a character."""
    if not isinstance(value, dict):
        return Record(line, None, f"It is {_name(value)}, not a JSON object.", "data_type")
    if surrogates:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Record(line, None, "It holds half a character (a lone \\ud800-\\udfff escape).")
    return Record(line, value)


def _name(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _jsonl(path: Path) -> Iterator[Record]:
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            text = raw.removeprefix(BOM) if line == 1 else raw
            if not text.isspace():
                yield _json_line(line, text)


def _json_line(line: int, raw: bytes) -> Record:
    try:
        return _checked(line, json.loads(raw.decode().rstrip()), surrogates=b"\\ud" in raw.lower())
    except UnicodeDecodeError as error:
        return Record(line, None, f"It is not UTF-8: byte {error.start + 1} of the line.")
    except json.JSONDecodeError as error:
        return Record(line, None, f"It is not JSON: {error.msg} at character {error.pos + 1}.")
    except (ValueError, RecursionError) as error:
        return Record(line, None, f"It cannot be read as JSON: {error}.")


def _json(path: Path) -> Iterator[Record]:
    raw = path.read_bytes()
    surrogates = b"\\ud" in raw.lower()
    try:
        value = json.loads(raw.removeprefix(BOM).decode())
    except UnicodeDecodeError as error:
        raise InvalidData(f"{path.name} is not UTF-8: byte {error.start + 1}.", hint="Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidData(f"{path.name} is not JSON: {error.msg} at {where}.", hint="Mend the file.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{path.name} cannot be read as JSON: {error}.", hint="Mend the file.") from error
    del raw
    if not isinstance(value, list):
        raise InvalidData(f"{path.name} holds {_whole(value)}, not rows.", hint="Write a list of objects.")
    for row, item in enumerate(value, start=1):
        yield _checked(row, item, surrogates=surrogates)


def _whole(value: Any) -> str:
    return "one object" if isinstance(value, dict) else _name(value)


def _csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(MAX_CELL)
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            header_line = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(header_line), strict=True)
            yield from _csv_rows(reader)
        except UnicodeDecodeError as error:
            raise InvalidData(f"{path.name} is not UTF-8: {error.reason}.", hint="Save it as UTF-8.") from error
        except csv.Error as error:
            raise InvalidData(f"{path.name} is not CSV: line {reader.line_num}: {error}.", hint="Check the quotes.") from error


def _delimiter(header: str) -> str:
    return next((mark for mark in (",", "\t", ";") if mark in header), ",")


def _csv_rows(reader: Any) -> Iterator[Record]:
    """Records of a CSV reader; a record is numbered by the line it begins on."""
    header = next(reader, [])
    line = reader.line_num + 1
    for cells in reader:
        if cells:
            if len(cells) == len(header):
                yield Record(line, dict(zip(header, cells, strict=True)))
            else:
                yield Record(line, None, f"It has {len(cells)} cells, but the header has {len(header)}.")
        line = reader.line_num + 1


def _parquet(path: Path) -> Iterator[Record]:
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    row += 1
                    yield Record(row, {name: without_nulls(cell) for name, cell in value.items()})
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidData(f"{path.name} is not a Parquet file that can be read: {error}.", hint="Write it again.") from error


def without_nulls(value: Any) -> Any:
    """The value without the null fields with which Parquet fills objects that have fewer fields than their neighbours."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
