"""Before a job is queued: its run folder with the files in it, and whether every row can be used. Knows no queue."""

from pathlib import Path
from typing import NamedTuple

from tunesmith.data.formats import ReadRows, read_rows
from tunesmith.data.images import has_image
from tunesmith.db.files import File
from tunesmith.errors import InvalidData
from tunesmith.recipes.method import METHODS
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.schemas.tuning_order import OURS
from tunesmith.store import BlobStore

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MAX_LISTED = 100

EXTRA, FORMAT_ERROR = "message_unrecognized_key", "invalid_file_format"
"""The check after which OpenAI speaks of a file format error, and that error's code."""

WIRE = {ours: name for name, ours in OURS.items()}
FORMATS = {
    "chat": "fine-tune-chat", "prompt_completion": "fine-tune-completion", "preference": "fine-tune-preference",
    "reinforcement": "fine-tune-reinforcement",
}
"""Our name of a format -> OpenAI's."""
NEEDS = {"preference": "dpo", "kto": "kto", "reinforcement": "reinforcement"}
"""Formats that supervised fine-tuning does not take -> the method that does."""
UNEXPECTED = "Unexpected file format, expected either prompt/completion pairs or chat messages. "


class Source(NamedTuple):
    """One file of a job: `param` is OpenAI's name for it, `name` the one in the run folder."""

    param: str
    name: str
    file: File


def data_name(param: str, filename: str) -> str:
    """The name of an uploaded file in a run folder; of the client's name only a known ending is kept."""
    suffix = Path(filename).suffix.lower()
    return f"{param.removesuffix('_file')}{suffix if suffix in SUFFIXES else '.jsonl'}"


def lay_out(folder: RunFolder, recipe: Recipe, sources: list[Source], store: BlobStore) -> None:
    """The run folder with recipe and data; may be done again. Raises NotFound, StorageFull."""
    folder.create(recipe)
    for source in sources:
        target = folder.data_path(source.name)
        if not target.exists():
            store.fetch(source.file.sha256, target)


def check(folder: RunFolder, recipe: Recipe, sources: list[Source], *, min_examples: int) -> int:
    """How many training rows there are. Raises InvalidData with OpenAI's code and param, naming every line that is wrong."""
    num_rows = 0
    for source in sources:
        try:
            found = read_rows(folder.data_path(source.name), recipe.data)
        except InvalidData as error:
            expected = UNEXPECTED if error.code == "unknown_shape" else ""
            raise _invalid(source, expected + error.message.replace(source.name, source.file.filename), error.hint) from error
        _check_format(source, recipe, found)
        if found.problems and (recipe.data.bad_rows == "refuse" or not found.rows):
            code = FORMAT_ERROR if all(problem.check == EXTRA for problem in found.problems) else None
            raise _invalid(source, _listing(source, found), "Mend them and upload it again.", code)
        seen = [row for row in found.rows if any(has_image(message["content"]) for message in row.messages)]
        if seen:
            where = f"{found.unit.capitalize()} {seen[0].line} of {source.file.filename}"
            raise _invalid(source, f"{where} holds an image, which {recipe.base} cannot see.", "Leave it out.", "not_available")
        num_rows = num_rows or len(found.rows)
        if source.param == "training_file" and len(found.rows) < min_examples:
            said = f"{source.file.filename} has {len(found.rows)} example(s), but must have at least {min_examples} examples."
            raise _invalid(source, said, "Add rows.")
    return num_rows


def _check_format(source: Source, recipe: Recipe, found: ReadRows) -> None:
    """Raises InvalidData for rows that the method has no use for."""
    known = METHODS[recipe.method.type].formats
    if found.format not in known and found.format != "auto":
        method, needed = WIRE.get(recipe.method.type, recipe.method.type), NEEDS.get(found.format, "supervised")
        said = (
            f"Input file {source.file.id} is in the {FORMATS.get(found.format, found.format)} format, but the specified "
            f"fine-tuning job is not using '{needed}' as the training method (provided method={method})."
        )
        raise _invalid(source, said, f"This method takes {', '.join(sorted(known))}; docs/data.md describes them.")


def _invalid(source: Source, said: str, hint: str, code: str | None = None) -> InvalidData:
    """In the words that OpenAI's users know."""
    what = source.param.replace("_", " ")
    why = f"a file format error in the {what}" if code == FORMAT_ERROR else f"an invalid {what}"
    message = f"The job failed due to {why}. {said}"
    return InvalidData(message, hint=hint, param=source.param, code=code or f"invalid_{source.param}")


def _listing(source: Source, found: ReadRows) -> str:
    """Every problem with its line, the reason, and the name of the check, up to MAX_LISTED."""
    lines = [
        f"{problem.unit} {problem.line}: {problem.reason.rstrip('.')}{f' [{problem.check}]' if problem.check else ''}"
        for problem in found.problems[:MAX_LISTED]
    ]
    more = len(found.problems) - len(lines)
    listed = "; ".join(lines) + (f"; and {more} more" if more else "")
    total = len(found.rows) + len(found.problems)
    return f"Invalid file format. {len(found.problems)} of {total} examples of {source.file.filename} cannot be used: {listed}."
