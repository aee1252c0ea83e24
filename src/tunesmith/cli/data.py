"""`tunesmith data check FILE`: what a training file holds, what is wrong with it, and which tokens of a row would train."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import track

from tunesmith.cli.data_report import show, show_row
from tunesmith.cli.datasets import located
from tunesmith.errors import InvalidRequest, TunesmithError
from tunesmith.paths import DataDir
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.run import parse_as
from tunesmith.settings import DEFAULT_BASE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.data.dataset import Encoded, Opened

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


class Examined(NamedTuple):
    """`report` is what --json prints; `opened` has the rows of the file that can be used, with their ids."""

    report: dict[str, Any]
    opened: "Opened"
    tokenizer: "PreTrainedTokenizerBase"


@app.callback()
def data() -> None:
    """Look at training data."""


@app.command()
def check(
    file: str = typer.Argument(..., help="A JSON, JSONL, CSV or Parquet file, or another source, such as hub:OWNER/NAME."),
    format: str = typer.Option("auto", help="The shape of the rows; see docs/data.md."),
    map: list[str] = typer.Option([], help="Our field = the file's column, such as question=ask; may be given again."),
    set: list[str] = typer.Option([], "--set", help="A placeholder's value, such as name=Ada for {{name}}; may be given again."),
    keep_placeholders: bool = typer.Option(False, "--keep-placeholders", help="Take {{name}} without a value as text."),
    skip_duplicates: bool = typer.Option(False, "--skip-duplicates", help="Set rows aside that repeat an earlier one."),
    validation: str = typer.Option(None, help="Held-out rows, to count questions that are in both files."),
    base: str = typer.Option(DEFAULT_BASE, help="The base whose tokenizer and template to use."),
    max_length: int = typer.Option(None, help="Tokens of the longest row allowed [default: the base's positions]."),
    row: int = typer.Option(None, help="Line (or row) number of the row to show [default: the first that can be used]."),
    data_dir: Path = typer.Option(Path(".tunesmith"), help="The folder whose models/ holds other bases."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Count rows and tokens, list what is wrong, and show one row's loss mask. Exit status 1 if anything is wrong."""
    recipe = parse_as(DataRecipe, {
        "train": file, "validation": validation, "format": format, "map": mapping(map, "map"), "values": mapping(set, "set"),
        "placeholders": "keep" if keep_placeholders else "refuse", "duplicates": "skip" if skip_duplicates else "keep",
    })
    try:
        found = examine(recipe, base, max_length, DataDir(data_dir.absolute()), quiet=as_json)
    except TunesmithError as error:
        if not as_json:
            raise
        print(json.dumps({"file": file, "problems": [{"line": None, "reason": str(error)}]}, indent=1))
        raise typer.Exit(1) from error
    if as_json:
        shown = {} if row is None else {"row": mask_of(pick(found, row))}
        print(json.dumps(found.report | shown, indent=1))
    else:
        console = Console(highlight=False, soft_wrap=True)
        show(console, found.report)
        show_row(console, pick(found, row), found.opened.unit, found.tokenizer)
    raise typer.Exit(1 if found.report["problems"] else 0)


def mapping(pairs: list[str], option: str) -> dict[str, str]:
    """`["a=b"]` as `{"a": "b"}`. Raises InvalidRequest for anything else."""
    for pair in pairs:
        if not all(pair.partition("=")):
            hint = {"map": "Write --map question=ask.", "set": "Write --set name=Ada."}[option]
            raise InvalidRequest(f"--{option} {pair} is not NAME=VALUE.", hint=hint, param=option)
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def examine(named: DataRecipe, base: str, max_length: int | None, dirs: DataDir, *, quiet: bool) -> Examined:
    """What a file holds. Raises TunesmithError if the whole of it cannot be read, or the base cannot be found."""
    from tunesmith.data.formats import RowFile
    from tunesmith.models.catalog import find_base

    recipe = located(named, dirs, quiet=quiet)
    source = RowFile(Path(recipe.train), recipe)
    found = find_base(base, dirs.models)

    # Only now: these take seconds to import, and a file that cannot be read should say so at once.
    from tunesmith.data.dataset import num_leaked, open_rows, refuse_unused
    from tunesmith.data.tokenizer import load_tokenizer

    limit = max_length or found.max_positions
    tokenizer = load_tokenizer(found.folder)
    aside = Console(stderr=True)
    opened = open_rows(
        source, tokenizer, limit, skip_duplicates=recipe.duplicates == "skip",
        watch=lambda rows: track(rows, "Encoding", console=aside, transient=True, disable=quiet or not aside.is_terminal),
    )
    held_out = open_rows(RowFile(Path(recipe.validation), recipe), tokenizer, limit) if recipe.validation else None
    refuse_unused([opened] + ([held_out] if held_out else []))
    report = to_report(opened) | {"file": recipe.source or named.train, "base": found.id, "max_length": limit}
    if held_out is not None:
        told = to_report(held_out)
        report["validation"] = {"file": named.validation, "leaked": num_leaked(opened.rows, held_out.rows)} | told
        report["problems"] += told["problems"]
    return Examined(report, opened, tokenizer)


def to_report(opened: "Opened") -> dict[str, Any]:
    """One file: `rows` are `usable` and those of `set_aside`."""
    from tunesmith.data.dataset import OVER_LONG, duplicates, lengths
    from tunesmith.data.examples import sides
    from tunesmith.data.formats import set_aside

    examples = [example for item in opened.rows for example in item.examples]
    return {
        "format": opened.format,
        "unit": opened.unit,
        "rows": opened.num_rows,
        "usable": len(opened.rows),
        "set_aside": set_aside(opened.problems),
        "examples": len(examples),
        "split_rows": sum(len(item.examples) > 1 for item in opened.rows),
        "problems": [
            {"line": problem.line, "reason": problem.reason, "check": problem.check}
            for problem in opened.problems if problem.check != "duplicate"
        ],
        "over_long": sum(problem.check == OVER_LONG for problem in opened.problems),
        "truncated": 0,
        "duplicates": [{"line": line, "of": first} for line, first in duplicates(opened.rows)],
        "tokens": lengths([side for example in examples for side in sides(example)]),
    }


def pick(found: Examined, line: int | None) -> "Encoded | None":
    """The row of a line, or the first usable one. Raises InvalidRequest if there is no row on that line that can be used."""
    for item in found.opened.rows:
        if line in (None, item.line):
            return item
    if line is None:
        return None
    unit = found.opened.unit
    reasons = [problem.reason for problem in found.opened.problems if problem.line == line]
    reason = reasons[0] if reasons else f"There is no such {unit}."
    raise InvalidRequest(f"{unit.capitalize()} {line} cannot be shown: {reason}", hint=f"Choose another {unit}.", param="row")


def mask_of(item: "Encoded | None") -> Any:
    """Ids and loss mask of each side of a row, for programs."""
    from tunesmith.data.examples import sides

    if item is None:
        return None
    return [{"ids": side.ids, "loss_mask": side.loss_mask} for example in item.examples for side in sides(example)]
