"""Before a job is queued: its run folder with the files in it, and whether every row can be used. Knows no queue."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from tunesmith.data.formats import ReadRows, read_rows
from tunesmith.db.files import File
from tunesmith.errors import InvalidData
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.store import storage_error

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MAX_LISTED = 5


class Source(NamedTuple):
    """One file of a job: `param` is OpenAI's name for it, `name` the one in the run folder, `blob` where its bytes lie."""

    param: str
    name: str
    file: File
    blob: Path


def data_name(param: str, filename: str) -> str:
    """The name of an uploaded file in a run folder; of the client's name only a known ending is kept."""
    suffix = Path(filename).suffix.lower()
    return f"{param.removesuffix('_file')}{suffix if suffix in SUFFIXES else '.jsonl'}"


def lay_out(folder: RunFolder, recipe: Recipe, sources: list[Source]) -> None:
    """The run folder with recipe and data; may be done again. Raises StorageFull."""
    folder.create(recipe)
    for source in sources:
        target = folder.data_path(source.name)
        if not target.exists():
            _link(source.blob, target)


def _link(source: Path, target: Path) -> None:
    """A hard link costs no space; where the file system has none, a copy."""
    try:
        os.link(source, target)
    except OSError:
        partial = target.with_name(f".{target.name}.new")
        try:
            shutil.copyfile(source, partial)
            os.replace(partial, target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise storage_error(error, target) from error


def check(folder: RunFolder, recipe: Recipe, sources: list[Source]) -> int:
    """How many training rows there are. Raises InvalidData naming file, line and reason, with OpenAI's code and param."""
    num_rows = 0
    for source in sources:
        code = f"invalid_{source.param}"
        try:
            found = read_rows(folder.data_path(source.name), recipe.data.format, recipe.data.map)
        except InvalidData as error:
            message = error.message.replace(source.name, source.file.filename)
            raise InvalidData(message, hint=error.hint, param=source.param, code=code) from error
        if found.problems and (recipe.data.bad_rows == "refuse" or not found.rows):
            raise InvalidData(_listing(source, found), hint="Mend them and upload it again.", param=source.param, code=code)
        num_rows = num_rows or len(found.rows)
    return num_rows


def _listing(source: Source, found: ReadRows) -> str:
    lines = [f"{problem.unit} {problem.line}: {problem.reason.rstrip('.')}" for problem in found.problems[:MAX_LISTED]]
    more = len(found.problems) - len(lines)
    listed = "; ".join(lines) + (f"; and {more} more" if more else "")
    total = len(found.rows) + len(found.problems)
    return f"{len(found.problems)} of {total} rows of {source.file.filename} cannot be used: {listed}."
