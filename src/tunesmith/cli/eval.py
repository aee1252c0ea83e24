"""`tunesmith eval`: scores of a model of this machine, measured on the engine that would serve it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.types import Quantization

if TYPE_CHECKING:
    from tunesmith.completer import Completer
    from tunesmith.data.skills import Item

app = typer.Typer(add_completion=False, rich_markup_mode=None)
SEED = 500_000
"""Of the generated questions; the base's training stream draws from other seeds."""


@app.command("eval")
def eval_(
    model: str = typer.Argument(..., help="A base's id, a run folder, an adapter's folder, or the id of a fine-tuned model."),
    file: Path = typer.Option(None, help="Ask the rows of this file instead of the base's skills."),
    skill: list[str] = typer.Option([], help="Only this skill; may be given several times."),
    items: int = typer.Option(100, min=1, help="Generated items per skill."),
    temperature: float = typer.Option(0.0, min=0.0, max=2.0, help="0 is greedy."),
    seed: int = typer.Option(SEED, help="Of the generated items and of sampling."),
    quantization: str = typer.Option("none", help="Precision of a base: none or nf4; an adapter brings its own."),
    data_dir: Path = typer.Option(Path(".tunesmith"), help="Where pulled bases and fine-tuned models lie."),
    threads: int = typer.Option(0, help="CPU threads; 0 means all."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Measure a model: its skills, or rows of a file."""
    if quantization not in ("none", "nf4"):
        raise typer.BadParameter("none or nf4", param_hint="--quantization")
    found = evaluate(
        model,
        file=file,
        skills=skill or None,
        items=items,
        temperature=temperature,
        seed=seed,
        quantization="nf4" if quantization == "nf4" else "none",
        data_dir=data_dir,
        threads=threads,
        show_progress=not as_json,
    )
    print(json.dumps(found, indent=1)) if as_json else show(found)


def evaluate(
    model: str | Path,
    *,
    file: str | Path | None = None,
    skills: list[str] | None = None,
    items: int = 100,
    temperature: float = 0.0,
    seed: int = SEED,
    quantization: Quantization = "none",
    data_dir: str | Path = ".tunesmith",
    threads: int = 0,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Exact match and token F1 on the rows of `file`, or accuracy per skill; figures are fractions from 0 to 1.

    Raises NotFound for an unknown model or skill, InvalidData for a file with bad rows, EngineFailed.
    """
    wanted = Wanted(str(model), file and Path(file), check_skills(skills), items, temperature, seed)
    return asyncio.run(_measure(wanted, quantization, Path(data_dir), threads, show_progress))


@dataclass(frozen=True)
class Wanted:
    """What to ask of which model."""

    model: str
    file: Path | None
    skills: list[str]
    items: int
    temperature: float
    seed: int


async def _measure(
    wanted: Wanted, quantization: Quantization, data_dir: Path, threads: int, show_progress: bool
) -> dict[str, Any]:
    from rich.progress import Progress

    from tunesmith.cli.local_model import find_target, local_model

    rows = read_items(wanted.file) if wanted.file else []
    target = find_target(wanted.model, data_dir, quantization)
    with Progress(disable=not show_progress) as bars:
        starting = bars.add_task("Start the engine", total=1)
        async with local_model(target, data_dir, threads) as completer:
            bars.update(starting, completed=1)
            asking = bars.add_task("Ask", total=len(rows) or len(wanted.skills) * wanted.items)
            found = await _ask(completer, wanted, rows, lambda done: bars.advance(asking, done))
    sampling = {"temperature": wanted.temperature, "seed": wanted.seed}
    return {"model": wanted.model, "base": target.base, "quantization": target.quantization} | sampling | found


async def _ask(completer: "Completer", wanted: Wanted, rows: list["Item"], progress: Callable[[int], None]) -> dict[str, Any]:
    from tunesmith.evals.ask import measure_rows, measure_skills

    temperature = wanted.temperature
    if wanted.file:
        scores = await measure_rows(completer, wanted.model, rows, progress=progress, temperature=temperature)
        return {"file": str(wanted.file)} | scores.as_dict()
    by_skill = await measure_skills(
        completer, wanted.model, wanted.skills, count=wanted.items, seed=wanted.seed, progress=progress, temperature=temperature
    )
    return {"items": wanted.items, "skills": {name: score.as_dict() for name, score in by_skill.items()}}


def check_skills(names: list[str] | None) -> list[str]:
    from tunesmith.data.skills import SKILLS
    from tunesmith.errors import NotFound

    for name in names or []:
        if name not in SKILLS:
            raise NotFound(f"There is no skill {name!r}.", hint=f"There are: {', '.join(SKILLS)}.")
    return names or list(SKILLS)


def read_items(file: Path) -> list["Item"]:
    """The rows of a file as questions with their last answer. Raises InvalidData with the first bad row."""
    from tunesmith.data.formats import read_rows
    from tunesmith.data.skills import Item
    from tunesmith.errors import InvalidData

    read = read_rows(file)
    if read.problems:
        raise InvalidData(str(read.problems[0]), hint=f"`tunesmith data check {file}` lists all.")
    found = [Item("row", row.messages[:-1], row.messages[-1], row.messages[-1], row.tools) for row in read.rows if row.messages]
    if not found:
        raise InvalidData(f"{file} has no conversation to ask.", hint="Rows need a question and an answer.")
    return found


def show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found['model']} ({found['quantization']}, temperature {found['temperature']:g})")
    table.add_column("skill" if "skills" in found else "measure")
    table.add_column("score", justify="right")
    table.add_column("95 % interval" if "skills" in found else "rows", justify="right")
    for name, score in found.get("skills", {}).items():
        low, high = score["interval"]
        table.add_row(name, f"{score['accuracy']:.1%}", f"{low:.1%} to {high:.1%}")
    if "skills" not in found:
        for name in ("exact_match", "token_f1"):
            table.add_row(name, f"{found[name]:.1%}", str(found["total"]))
    Console().print(table)
