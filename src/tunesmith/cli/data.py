"""`tunesmith data check FILE`: what a training file holds, what is wrong with it, and which tokens of a row would train."""

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from tunesmith.errors import InvalidRequest, TunesmithError
from tunesmith.paths import DataDir
from tunesmith.settings import DEFAULT_BASE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.data.chat_template import EncodedRow
    from tunesmith.data.dataset import Encoded

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
SHOWN = 20
"""Problems printed for people; --json has all."""


class Examined(NamedTuple):
    """`report` is what --json prints; `rows` are those of the file that have a shape, with their ids."""

    report: dict[str, Any]
    rows: list["Encoded"]
    tokenizer: "PreTrainedTokenizerBase"


@app.callback()
def data() -> None:
    """Look at training data."""


@app.command()
def check(
    file: Path = typer.Argument(..., help="A JSON, JSONL, CSV or Parquet file."),
    format: str = typer.Option("auto", help="The shape of the rows; see docs/data.md."),
    map: list[str] = typer.Option([], help="Our field = the file's column, such as question=ask; may be given again."),
    base: str = typer.Option(DEFAULT_BASE, help="The base whose tokenizer and template to use."),
    max_length: int = typer.Option(None, help="Tokens of the longest row allowed [default: the base's positions]."),
    row: int = typer.Option(None, help="Line (or row) number of the row to show [default: the first that can be used]."),
    data_dir: Path = typer.Option(Path(".tunesmith"), help="The folder whose models/ holds other bases."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Count rows and tokens, list what is wrong, and show one row's loss mask. Exit status 1 if anything is wrong."""
    try:
        found = examine(file, format, mapping(map), base, max_length, DataDir(data_dir.absolute()).models)
    except TunesmithError as error:
        if not as_json:
            raise
        print(json.dumps({"file": str(file), "problems": [{"line": None, "reason": str(error)}]}, indent=1))
        raise typer.Exit(1) from error
    if as_json:
        shown = {} if row is None else {"row": mask_of(pick(found, row))}
        print(json.dumps(found.report | shown, indent=1))
    else:
        console = Console(highlight=False, soft_wrap=True)
        show(console, found.report)
        show_row(console, pick(found, row), found)
    raise typer.Exit(1 if found.report["problems"] else 0)


def mapping(pairs: list[str]) -> dict[str, str]:
    """`["a=b"]` as `{"a": "b"}`. Raises InvalidRequest for anything else."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise InvalidRequest(f"--map {pair} is not FIELD=COLUMN.", hint="Write --map question=ask.", param="map")
    return {name: column for name, _, column in (pair.partition("=") for pair in pairs)}


def examine(
    file: Path, format: str, map: dict[str, str], base: str, max_length: int | None, models_dir: Path
) -> Examined:
    """What a file holds. Raises TunesmithError if the whole of it cannot be read, or the base cannot be found."""
    from tunesmith.data.formats import read_rows
    from tunesmith.models.catalog import find_base

    read = read_rows(file, format, map)
    found = find_base(base, models_dir)

    # Only now: these take seconds to import, and a file that cannot be read should say so at once.
    from tunesmith.data.dataset import duplicates, encode_rows, lengths
    from tunesmith.data.tokenizer import load_tokenizer

    limit = max_length or found.max_positions
    tokenizer = load_tokenizer(found.folder)
    rows = encode_rows(read, file.name, tokenizer, limit)
    quiet = Console(stderr=True)
    encoded = list(track(rows, "Encoding", total=len(read.rows), console=quiet, transient=True, disable=not quiet.is_terminal))
    problems = sorted(read.problems + [item.problem for item in encoded if item.problem], key=lambda problem: problem.line)
    report = {
        "file": str(file),
        "format": read.format,
        "unit": read.unit,
        "rows": len(read.rows) + len(read.problems),
        "usable": sum(item.problem is None for item in encoded),
        "problems": [{"line": problem.line, "reason": problem.reason, "check": problem.check} for problem in problems],
        "duplicates": [{"line": line, "of": first} for line, first in duplicates(read.rows)],
        "tokens": lengths([side for item in encoded for side in item.sides]),
        "base": found.id,
        "max_length": limit,
    }
    return Examined(report, encoded, tokenizer)


def pick(found: Examined, line: int | None) -> "Encoded | None":
    """The row of a line, or the first usable one. Raises InvalidRequest if there is no row on that line that has ids."""
    for item in found.rows:
        if item.sides and (item.row.line == line or (line is None and item.problem is None)):
            return item
    if line is None:
        return None
    unit = found.report["unit"]
    reasons = [problem["reason"] for problem in found.report["problems"] if problem["line"] == line]
    reason = reasons[0] if reasons else f"There is no such {unit}."
    raise InvalidRequest(f"{unit.capitalize()} {line} cannot be shown: {reason}", hint=f"Choose another {unit}.", param="row")


def mask_of(item: "Encoded | None") -> Any:
    """Ids and loss mask of each side of a row, for programs."""
    return None if item is None else [{"ids": side.ids, "loss_mask": side.loss_mask} for side in item.sides]


def show(console: Console, report: dict[str, Any]) -> None:
    """The report, for people."""
    problems, repeats, unit, tokens = report["problems"], report["duplicates"], report["unit"], report["tokens"]
    listed = ", ".join(f"{unit} {repeat['line']} = {unit} {repeat['of']}" for repeat in repeats[:5])
    more = f" ({listed}{', ...' if len(repeats) > 5 else ''})" if repeats else ""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("File", Text(report["file"]))
    table.add_row("Format", report["format"])
    table.add_row("Rows", f"{report['usable']} of {report['rows']} can be used")
    table.add_row("Tokens of a row", ", ".join(f"{name} {tokens[name]}" for name in ("min", "median", "p95", "max")))
    table.add_row("Tokens in all", f"{tokens['total']}, of which {tokens['trained']} train")
    table.add_row("Base", Text(f"{report['base']}, at most {report['max_length']} tokens a row"))
    table.add_row("Duplicates", f"{len(repeats)}{more}")
    table.add_row("Problems", Text(str(len(problems)), style="red" if problems else "green"))
    console.print(table)
    for problem in problems[:SHOWN]:
        console.print(Text(f"  {unit} {problem['line']}: {problem['reason']}", style="red"))
    if len(problems) > SHOWN:
        console.print(f"  and {len(problems) - SHOWN} more; --json lists all")


def show_row(console: Console, item: "Encoded | None", found: Examined) -> None:
    """One row's text; what trains is green, or stands in {+ +} where there is no colour."""
    if item is None:
        return
    plain = console.no_color or not console.is_terminal
    names = ("chosen", "rejected") if len(item.sides) == 2 else ("",)
    for name, side in zip(names, item.sides, strict=True):
        title = f"\n{found.report['unit'].capitalize()} {item.row.line}{name and ', ' + name}: "
        console.print(Text(title + ("{+what trains+}" if plain else "green trains, grey does not"), style="bold"))
        text = Text()
        for trains, ids in spans(side):
            piece = found.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            text.append(f"{{+{piece}+}}" if plain and trains else piece, style="green" if trains else "bright_black")
        console.print(text)


def spans(side: "EncodedRow") -> list[tuple[bool, list[int]]]:
    """Runs of ids that train, and of ids that do not, in turn."""
    pairs = zip(side.loss_mask, side.ids, strict=True)
    return [(trains, [token for _, token in run]) for trains, run in groupby(pairs, key=lambda pair: pair[0])]
