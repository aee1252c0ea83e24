"""`tunesmith train RECIPE`: runs a recipe here, in a run folder of its own. No server, no database."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tunesmith.cli import local_run
from tunesmith.cli.data_report import rows_line
from tunesmith.errors import Interrupted, InvalidRecipe, InvalidRequest
from tunesmith.recipes.run import Recipe, load, merge, parse
from tunesmith.runfolder import INTERRUPTED, Event, RunFolder

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Path = typer.Argument(..., help="A recipe (.toml or .json); with --resume the folder of a run."),
    run_dir: Path = typer.Option(None, help="The run's folder [default: a new one under .tunesmith/runs]."),
    resume: bool = typer.Option(False, "--resume", help="Go on with a run that was paused, killed or out of disk space."),
    data: str = typer.Option(None, help="What to train on instead of the recipe's data.train: a file, or hub:OWNER/NAME."),
    set: list[str] = typer.Option([], help="A field of the recipe, such as method.epochs=5; may be given again."),
    processes: int = typer.Option(None, help="Processes that share each step, one for each GPU; short for compute.processes."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object, and no progress."),
) -> None:
    """Fine-tune here. Ctrl-C pauses: a checkpoint is written, and `tunesmith train --resume FOLDER` goes on.

    Exit status 33: the machine is being taken away, or SIGTERM came; a checkpoint was written, start it again.
    """
    changes = set + ([] if data is None else [f"data.train={json.dumps(data)}"])
    changes += [] if processes is None else [f"compute.processes={processes}"]
    folder = _resumed(run_dir or recipe, changes) if resume else _new(recipe, run_dir, changes, quiet=as_json)
    console = Console(stderr=True, quiet=as_json)
    console.print(f"The run lies in {folder.root}", highlight=False)
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ending.set())
    try:
        with Bar(console) as bar:
            result = local_run.run(folder, bar.show, is_ending=ending.is_set)
    except Interrupted as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps({"folder": str(folder.root), "result": result}, indent=1))
    if result is None:
        console.print(f"Stopped. Go on with: {local_run.resume_command(folder)}", highlight=False)
        raise typer.Exit(130)
    _tell(console, folder, result)


def _new(path: Path, run_dir: Path | None, changes: list[str], *, quiet: bool) -> RunFolder:
    recipe = changed(load(path), changes)
    return local_run.lay_out(recipe, (run_dir or local_run.new_folder(recipe)).absolute(), quiet=quiet)


def _resumed(root: Path, changes: list[str]) -> RunFolder:
    if changes:
        hint = "Leave --set and --data out, or start a new run."
        raise InvalidRequest("A run goes on with the recipe that it began with.", hint=hint)
    return local_run.existing(root.absolute())


def changed(recipe: Recipe, changes: list[str]) -> Recipe:
    """The recipe with `a.b=value` laid over it; a value is read as JSON, else taken as text. Raises InvalidRecipe."""
    whole = recipe.model_dump(mode="json")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            raise InvalidRecipe(f"--set {change} is not FIELD=VALUE.", hint="Such as --set method.epochs=5.")
        part: Any = _value(text)
        for key in reversed(name.split(".")):
            part = {key: part}
        whole = merge(whole, part)
    return parse(whole)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


class Bar:
    """A progress bar fed by a run's events."""

    def __init__(self, console: Console):
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console, disable=console.quiet,
        )
        self._task = self._progress.add_task("Starting", total=None, note="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        kind = event["type"]
        if kind == "phase":
            self._progress.update(self._task, description=event["message"])
        elif kind == "step":
            note = f"loss {event['loss']:.3f}  {event['tokens_per_second']:,.0f} tokens/s"
            self._progress.update(self._task, completed=event["step"], total=event["total_steps"], note=note)
        elif kind == "eval":
            self._console.print(f"step {event['step']}: held-out loss {event['loss']:.4f}", highlight=False)
        elif kind == "resumed":
            self._console.print(f"Resumed from the checkpoint at step {event['step']}", highlight=False)
        elif kind == "warning":
            self._console.print(event["message"], style="yellow", highlight=False)


def _tell(console: Console, folder: RunFolder, result: dict[str, Any]) -> None:
    metrics = result["metrics"]
    told = f"Training loss {metrics['train_loss']:.4f}"
    if "eval_loss" in metrics:
        told += f", held-out loss {metrics['eval_loss_before']:.4f} -> {metrics['eval_loss']:.4f}"
    console.print(f"{told} after {result['steps']} steps and {result['trained_tokens']:,} tokens.", highlight=False)
    data = result["data"]
    parts = {"trained": data["train"]} | ({} if "validation" in data else {"held out": data["held_out"]})
    console.print(f"Rows: {rows_line(data['rows'], parts, data['set_aside'])}", highlight=False)
    for reason, count in data["set_aside"].items():
        console.print(f"  {count} set aside: {reason}", highlight=False, markup=False)
    adapter = folder.root / result["adapter"]["path"]
    console.print(f"The {adapter.name} is {adapter}\nMeasure it with: tunesmith eval {folder.root}", highlight=False)
