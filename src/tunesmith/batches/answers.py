"""What a batch has been answered so far: an append-only file that survives a kill, and the two files that are made from it.

    artifacts/answers.jsonl  one line per answered request, in the order in which answers came: {"line", "ok", "usage", "row"}
    artifacts/output.jsonl   the rows of those that succeeded, in the order of the input
    artifacts/errors.jsonl   the rows of those that did not

Does not know who asks.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.store import fsync_folder, storage_error

COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True)
class Answered:
    """`line` counts lines of the input from 1; `row` is the line of the output or error file; `usage` counts tokens by COUNTS."""

    line: int
    ok: bool
    row: dict[str, Any]
    usage: dict[str, int]


class AnswerLog:
    """The file of answers, open for writing. What the kernel has survives a kill of the process; `sync` makes it survive a power
    cut. A torn last line, left by a kill, is cut."""

    def __init__(self, path: Path):
        self._path = path
        self._file = open(path, "a+b")  # noqa: SIM115  (lives as long as the attempt)
        self._where: dict[int, tuple[int, bool]] = {}
        self.num_ok = 0
        self.usage = dict.fromkeys(COUNTS, 0)
        self._read()

    def _read(self) -> None:
        good = 0
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            self._count(json.loads(line), good)
            good += len(line)
        self._file.truncate(good)

    def _count(self, answer: dict[str, Any], offset: int) -> None:
        self._where[answer["line"]] = (offset, answer["ok"])
        self.num_ok += answer["ok"]
        for name, number in answer["usage"].items():
            self.usage[name] += number

    def __contains__(self, line: int) -> bool:
        return line in self._where

    def __len__(self) -> int:
        return len(self._where)

    def add(self, answer: Answered) -> None:
        """Raises StorageFull when the disk is full; the file is then as it was."""
        offset = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(json.dumps(vars(answer), separators=(",", ":")).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            os.truncate(self._path, offset)
            raise storage_error(error, self._path) from error
        self._count(vars(answer), offset)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def row(self, line: int) -> tuple[bool, dict[str, Any]]:
        """Whether the request on that line of the input succeeded, and its row."""
        offset, ok = self._where[line]
        self._file.seek(offset)
        row: dict[str, Any] = json.loads(self._file.readline())["row"]
        return ok, row

    def close(self) -> None:
        self._file.close()


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """A file of rows, whole or not at all; how many. None of them is no file. Raises StorageFull."""
    new, num_rows = path.with_name(f".{path.name}.new"), 0
    try:
        with open(new, "wb") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                num_rows += 1
            file.flush()
            os.fsync(file.fileno())
        if num_rows:
            os.replace(new, path)
            fsync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        new.unlink(missing_ok=True)
    return num_rows
