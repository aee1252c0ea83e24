"""Encoded examples in a memory-mapped file: made once for the same files, tokenizer, template and choices, and read by number.

    tokens/KEY.safetensors   ids (uint32) and mask (uint8) of all rows one after another, ends (int64) of the rows, kinds (uint8)
           KEY.json          what else is known of the rows, such as the report

Whoever reads sees a `Sequence[Example]` and holds none of them; the writer holds one buffer. Knows no template and no torch.
"""

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy

from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Example, Judged, Pair, as_json, num_tokens, sides
from tunesmith.store import fsync_folder, storage_error

BUFFERED = 1 << 20
"""Tokens that the writer holds before it writes them."""
FORMAT = 1
ROW, PAIR, GOOD, BAD = range(4)
"""Kinds of an example."""


def key(paths: Iterable[Path], *told: Any) -> str:
    """The name of what is made of files and choices; equal for equal bytes, wherever the files lie."""
    digest = hashlib.sha256(json.dumps([FORMAT, *told], sort_keys=True, default=str).encode())
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


class Tokens:
    """An opened file: `ids`, `mask`, `ends` of the rows, `kinds` and `first` (the number of the first row) of the examples."""

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        dtypes = {"ids": "<u4", "mask": "u1", "ends": "<i8", "kinds": "u1"}
        mapped = {
            name: numpy.memmap(path, dtype, "r", 8 + size + header[name]["data_offsets"][0], tuple(header[name]["shape"]))
            if header[name]["shape"][0] else numpy.empty(0, dtype)
            for name, dtype in dtypes.items()
        }
        self.ids, self.mask, self.kinds = mapped["ids"], mapped["mask"], mapped["kinds"]
        self.ends = numpy.concatenate([numpy.zeros(1, "<i8"), mapped["ends"]])
        self.first = numpy.concatenate([numpy.zeros(1, "<i8"), numpy.cumsum(1 + (self.kinds == PAIR).astype("<i8"))])

    def row(self, number: int) -> EncodedRow:
        start, end = self.ends[number], self.ends[number + 1]
        return EncodedRow(self.ids[start:end].tolist(), self.mask[start:end].view(bool).tolist())

    def example(self, number: int) -> Example:
        kind, row = self.kinds[number], int(self.first[number])
        if kind == PAIR:
            return Pair(self.row(row), self.row(row + 1))
        return self.row(row) if kind == ROW else Judged(self.row(row), bool(kind == GOOD))


class Writer:
    """Writes examples as they come. What `add` returns can be read after `finish`."""

    def __init__(self, path: Path):
        self.path = path
        self.tokens: Tokens | None = None
        self._parts = {name: path.with_name(f".{path.stem}.{name}.part") for name in ("ids", "mask")}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files = {name: open(part, "wb") for name, part in self._parts.items()}  # noqa: SIM115  (closed by finish or close)
        self._ids, self._mask = array("I"), bytearray()
        self._ends, self._kinds, self._num_tokens = array("q"), bytearray(), 0

    def add(self, examples: Sequence[Example]) -> "Stored":
        """Raises StorageFull."""
        start = len(self._kinds)
        for example in examples:
            self._kinds.append(_kind(example))
            for row in sides(example):
                self._ids.extend(row.ids)
                self._mask.extend(row.loss_mask)
                self._num_tokens += len(row.ids)
                self._ends.append(self._num_tokens)
        if len(self._ids) > BUFFERED:
            self._flush()
        return Stored(self, range(start, len(self._kinds)))

    def _flush(self) -> None:
        try:
            self._files["ids"].write(self._ids.tobytes())
            self._files["mask"].write(self._mask)
        except OSError as error:
            raise storage_error(error, self.path) from error
        self._ids, self._mask = array("I"), bytearray()

    def finish(self) -> Tokens:
        """Makes the file, which is of no use to others before `tell`. Raises StorageFull."""
        self._flush()
        try:
            self._write()
        except OSError as error:
            raise storage_error(error, self.path) from error
        finally:
            self.close()
        self.tokens = Tokens(self.path)
        return self.tokens

    def tell(self, told: dict[str, Any]) -> None:
        """Writes what else is known of the rows, last: from now on the file is found by its key. Raises StorageFull."""
        try:
            _write_durably(self.path.with_suffix(".json"), json.dumps(told).encode())
            fsync_folder(self.path.parent)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _write(self) -> None:
        sizes = {"ids": ("U32", self._num_tokens, 4), "mask": ("U8", self._num_tokens, 1),
                 "ends": ("I64", len(self._ends), 8), "kinds": ("U8", len(self._kinds), 1)}
        header, offset = {}, 0
        # The widest first, so that each begins on a multiple of its size.
        for name in ("ends", "ids", "mask", "kinds"):
            dtype, count, size = sizes[name]
            header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [offset, offset + count * size]}
            offset += count * size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        part = self.path.with_name(f".{self.path.name}.part")
        for file in self._files.values():
            file.close()
        with open(part, "wb") as whole:
            whole.write(len(text).to_bytes(8, "little") + text + self._ends.tobytes())
            for name in ("ids", "mask"):
                with open(self._parts[name], "rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
            whole.write(self._kinds)
            whole.flush()
            os.fsync(whole.fileno())
        os.replace(part, self.path)

    def close(self) -> None:
        """Leaves no parts behind."""
        for name, file in self._files.items():
            file.close()
            self._parts[name].unlink(missing_ok=True)


class Stored(Sequence[Example]):
    """Examples of a writer's file by their numbers in it, in any order."""

    def __init__(self, source: Writer | Tokens, numbers: range | numpy.ndarray[Any, Any]):
        self._source, self.numbers = source, numbers

    @property
    def tokens(self) -> Tokens:
        found = self._source.tokens if isinstance(self._source, Writer) else self._source
        assert found is not None, "the file is not finished"
        return found

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> "Stored": ...
    def __getitem__(self, place: int | slice) -> "Example | Stored":
        if isinstance(place, slice):
            return Stored(self._source, self.numbers[place])
        return self.tokens.example(int(self.numbers[place]))

    def lengths(self) -> numpy.ndarray[Any, Any]:
        """Tokens of each example, of a pair those of both rows; without reading any."""
        numbers = numpy.asarray(self.numbers, "<i8")
        found = self.tokens
        return found.ends[found.first[numbers + 1]] - found.ends[found.first[numbers]]

    def sizes(self) -> tuple[list[int], int]:
        """Tokens of each row, and how many of all tokens train."""
        found = self.tokens
        rows = [row for number in self.numbers for row in range(found.first[number], found.first[number + 1])]
        trained = sum(int(numpy.count_nonzero(found.mask[found.ends[row] : found.ends[row + 1]])) for row in rows)
        return numpy.diff(found.ends)[rows].tolist(), trained

    def digest(self) -> str:
        """Of the examples and their order: equal for equal examples that were made from equal files."""
        numbers = numpy.asarray(self.numbers, "<i8")
        digest = hashlib.sha256(numbers.tobytes() + self.tokens.ends.tobytes() + self.tokens.kinds.tobytes())
        for values in (self.tokens.ids, self.tokens.mask):
            for start in range(0, len(values), BUFFERED):
                digest.update(values[start : start + BUFFERED].tobytes())
        return digest.hexdigest()


class Joined(Sequence[Example]):
    """One sequence of examples after another."""

    def __init__(self, one: Sequence[Example], other: Sequence[Example]):
        self.parts = (one, other)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        one, other = self.parts
        place = place + len(self) if place < 0 else place
        return one[place] if place < len(one) else other[place - len(one)]


def lengths(examples: Sequence[Example]) -> list[int]:
    """`num_tokens` of each, for those in a file without reading them."""
    if isinstance(examples, Joined):
        return lengths(examples.parts[0]) + lengths(examples.parts[1])
    return examples.lengths().tolist() if isinstance(examples, Stored) else [num_tokens(example) for example in examples]


def sizes(examples: Sequence[Example]) -> tuple[list[int], int]:
    """Tokens of each row of each example, and how many of all tokens train."""
    if isinstance(examples, Stored):
        return examples.sizes()
    rows = [row for example in examples for row in sides(example)]
    return [len(row.ids) for row in rows], sum(row.num_trained for row in rows)


def numbers(examples: Sequence[Example]) -> list[int]:
    """Their places in the file; none for no examples."""
    return [int(number) for number in examples.numbers] if isinstance(examples, Stored) else []


def digest(examples: Sequence[Example]) -> str:
    """Of the examples and their order."""
    if isinstance(examples, Stored):
        return examples.digest()
    found = hashlib.sha256()
    for example in examples:
        found.update(json.dumps(as_json(example)).encode())
    return found.hexdigest()


def find(path: Path) -> tuple[Tokens, dict[str, Any]] | None:
    """The file at `path` and what was told of it, if both are there."""
    told = path.with_suffix(".json")
    return (Tokens(path), json.loads(told.read_bytes())) if told.exists() and path.exists() else None


def stored(parts: Sequence[Sequence[Example]]) -> Sequence[Example]:
    """Several sequences as one: by number if all are of one file, else as a list."""
    first = parts[0] if parts else ()
    if isinstance(first, Stored):
        numbers = (number for part in parts if isinstance(part, Stored) for number in part.numbers)
        return Stored(first._source, numpy.fromiter(numbers, "<i8"))
    return [example for part in parts for example in part]


def _kind(example: Example) -> int:
    match example:
        case Pair():
            return PAIR
        case Judged(_, label):
            return GOOD if label else BAD
        case _:
            return ROW


def _write_durably(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
