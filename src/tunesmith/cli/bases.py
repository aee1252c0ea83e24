"""`tunesmith models pull|add|remove`: what changes the shelf of bases of a data directory. `cli/models.py` lists and shows it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunesmith.errors import InvalidRequest
from tunesmith.paths import DataDir
from tunesmith.types import TERMINAL

if TYPE_CHECKING:
    from tunesmith.models.shelf import Source

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
JSON = typer.Option(False, "--json", help="Print JSON.")
USE = "Name {!r} as `base` in a recipe, or as `model` when a job is created."
NEWEST_JOBS = 1000
"""Jobs that are looked through for unfinished ones."""


def pull(
    repo: str = typer.Argument(..., metavar="ORG/NAME", help="A model on the Hugging Face hub."),
    revision: str = typer.Option(None, help="Branch, tag or commit [default: the main branch]; pinned to the commit it is now."),
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Bring a base from the hub. A pull that was stopped goes on where it stopped.

    HF_TOKEN opens gated and private models, HF_ENDPOINT names another hub. Only safetensors are taken, and no code.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from tunesmith.models.hub import pull as pull_base

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {"": bars.add_task(f"Ask the hub for {repo}", total=None)}

        def report(name: str, done: int, total: int) -> None:
            bars.update(tasks[""], total=1, completed=1, visible=False)
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        source = pull_base(repo, DataDir(data_dir.absolute()).models, revision=revision, report=report)
    _tell(source, as_json, f"{source.id} is here, at commit {source.revision}. {USE.format(source.id)}")


def add(
    path: Path = typer.Argument(..., help="Folder with config.json, safetensors and tokenizer."),
    name: str = typer.Option(None, help="What to call it [default: the folder's name]."),
    copy: bool = typer.Option(False, "--copy", help="Copy the files; otherwise they stay where they are."),
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Put a local model on the shelf, under a name."""
    from tunesmith.models.shelf import add as add_base

    source = add_base(path, DataDir(data_dir.absolute()).make().models, name=name, copy=copy)
    where = "was copied" if copy else f"points to {source.path}"
    _tell(source, as_json, f"{source.id} {where}. {USE.format(source.id)}")


def remove(
    name: str = typer.Argument(..., metavar="NAME", help="Id of a base that was pulled or added."),
    force: bool = typer.Option(False, "--force", help="Also if fine-tuned models need it; they can then not be served."),
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Take a base off the shelf. Its files are deleted if they are ours, and never if it was added from your own folder."""
    from tunesmith.models.shelf import remove as remove_base

    needed_by = [] if force else _needed_by(name, data_dir)
    if needed_by:
        raise InvalidRequest(
            f"{name} is needed by {len(needed_by)} fine-tuned model(s) or job(s), such as {needed_by[0]}.",
            hint="--force removes it all the same.",
            code="in_use",
        )
    source = remove_base(name, DataDir(data_dir.absolute()).models)
    kept = f"; the files in {source.path} are untouched" if source.kind == "link" else ""
    _tell(source, as_json, f"{source.id} is removed{kept}.")


def _needed_by(base: str, data_dir: Path) -> list[str]:
    """Ids of the fine-tuned models made on `base`, and of the jobs that still train on it."""
    from tunesmith.cli.database import opened
    from tunesmith.db import jobs, models

    if not DataDir(data_dir.absolute()).database.exists():
        return []
    with opened(data_dir) as database, database.read() as connection:
        tuned = [model.id for model in models.list_all(connection) if model.base == base]
        newest, _ = jobs.list_page(connection, after=None, limit=NEWEST_JOBS)
        return tuned + [job.id for job in newest if job.base == base and job.status not in TERMINAL]


def _tell(source: "Source", as_json: bool, sentence: str) -> None:
    print(json.dumps(asdict(source), indent=1) if as_json else sentence)
