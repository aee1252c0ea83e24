"""What `tunesmith data check` found, as tables for people, and a row with its loss mask in colour."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.data.chat_template import EncodedRow
    from tunesmith.data.dataset import Encoded

SHOWN = 20
"""Problems printed for people; --json has all."""
MAX_REASONS = 12


def show(console: Console, report: dict[str, Any]) -> None:
    """The report, for people."""
    tokens = report["tokens"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("File", Text(report["file"]))
    table.add_row("Format", report["format"])
    table.add_row("Rows", rows_line(report["rows"], {"to train on": report["usable"]}, report["set_aside"]))
    for reason, count in list(report["set_aside"].items())[:MAX_REASONS]:
        table.add_row("", Text(f"{count} set aside: {reason}", style="red"))
    if len(report["set_aside"]) > MAX_REASONS:
        table.add_row("", f"and {len(report['set_aside']) - MAX_REASONS} more reasons; --json lists all")
    if report["split_rows"]:
        several = f"{report['split_rows']} conversations become several rows, for the template rewrites earlier messages"
        table.add_row("Rows to train on", f"{report['examples']}: {several}")
    table.add_row("Tokens of a row", ", ".join(f"{name} {tokens[name]}" for name in ("min", "median", "p95", "max")))
    table.add_row("Tokens in all", f"{tokens['total']}, of which {tokens['trained']} train")
    table.add_row("Base", Text(f"{report['base']}, at most {report['max_length']} tokens a row"))
    table.add_row("Too long", f"{report['over_long']}; a row is never cut")
    table.add_row("Duplicates", _duplicates(report))
    if "validation" in report:
        held = report["validation"]
        table.add_row("Held out", f"{held['usable']} of {held['rows']} can be used, {held['leaked']} ask what is trained on")
    table.add_row("Problems", Text(str(len(report["problems"])), style="red" if report["problems"] else "green"))
    console.print(table)
    _show_problems(console, report)


def rows_line(num_rows: int, parts: dict[str, int], set_aside: dict[str, int]) -> str:
    """Where the rows of a file went: the parts and what was set aside are all of them."""
    told = [f"{count} {name}" for name, count in {**parts, "set aside": sum(set_aside.values())}.items()]
    return f"{num_rows} read = {' + '.join(told)}"


def _duplicates(report: dict[str, Any]) -> str:
    repeats, unit = report["duplicates"], report["unit"]
    listed = ", ".join(f"{unit} {repeat['line']} = {unit} {repeat['of']}" for repeat in repeats[:5])
    return f"{len(repeats)} ({listed}{', ...' if len(repeats) > 5 else ''})" if repeats else "0"


def _show_problems(console: Console, report: dict[str, Any]) -> None:
    problems, unit = report["problems"], report["unit"]
    for problem in problems[:SHOWN]:
        console.print(Text(f"  {unit} {problem['line']}: {problem['reason']}", style="red"))
    if len(problems) > SHOWN:
        console.print(f"  and {len(problems) - SHOWN} more; --json lists all")
    if any(problem["check"] == "placeholder" for problem in problems):
        console.print("Give placeholders a value with --set name=..., or keep them as text with --keep-placeholders.")


def show_row(console: Console, item: "Encoded | None", unit: str, tokenizer: "PreTrainedTokenizerBase") -> None:
    """One row's text; what trains is green, or stands in {+ +} where there is no colour."""
    if item is None:
        return
    plain = console.no_color or not console.is_terminal
    for name, side in _sides(item):
        title = f"\n{unit.capitalize()} {item.line}{name and ', ' + name}: "
        console.print(Text(title + ("{+what trains+}" if plain else "green trains, grey does not"), style="bold"))
        text = Text()
        for trains, ids in spans(side):
            piece = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            text.append(f"{{+{piece}+}}" if plain and trains else piece, style="green" if trains else "bright_black")
        console.print(text)


def _sides(item: "Encoded") -> "list[tuple[str, EncodedRow]]":
    """What is trained of a row, each with the name that it has beside the others."""
    from tunesmith.data.examples import Judged, Pair

    named: list[tuple[str, EncodedRow]] = []
    for number, example in enumerate(item.examples, start=1):
        if isinstance(example, Pair):
            named += [("chosen", example.chosen), ("rejected", example.rejected)]
        elif isinstance(example, Judged):
            named.append(("good" if example.label else "bad", example.row))
        else:
            named.append((f"answer {number} of {len(item.examples)}" if len(item.examples) > 1 else "", example))
    return named


def spans(side: "EncodedRow") -> list[tuple[bool, list[int]]]:
    """Runs of ids that train, and of ids that do not, in turn."""
    pairs = zip(side.loss_mask, side.ids, strict=True)
    return [(trains, [token for _, token in run]) for trains, run in groupby(pairs, key=lambda pair: pair[0])]
