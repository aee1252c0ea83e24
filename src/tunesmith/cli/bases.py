"""`tunesmith models pull|add|remove`: what changes the shelf of bases of a data directory. `cli/models.py` lists and shows it."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

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
    base: str = typer.Argument(
        ..., metavar="NAME_OR_PATH", help="Folder with config.json, safetensors and tokenizer; or a base that is here already."
    ),
    name: str = typer.Option(None, help="What to call it [default: the folder's name]."),
    copy: bool = typer.Option(False, "--copy", help="Copy the files; otherwise they stay where they are."),
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Put a local model on the shelf, under a name. A server that runs on the data directory starts its engine."""
    from tunesmith.models.catalog import find_base
    from tunesmith.models.shelf import add as add_base

    dirs = DataDir(data_dir.absolute())
    if Path(base).expanduser().is_dir():
        source = add_base(Path(base), dirs.make().models, name=name, copy=copy)
        where = "was copied" if copy else f"points to {source.path}"
        told, value = f"{source.id} {where}. {USE.format(source.id)}", asdict(source)
        base = source.id
    elif name is not None or copy:
        raise InvalidRequest(f"There is no folder {base}.", hint="--name and --copy are for a folder.")
    else:
        find_base(base, dirs.models)
        told, value = f"{base} is here. {USE.format(base)}", {"id": base}
    url = _ask_desk(dirs, "POST", base)
    served = f" The server at {url} starts its engine." if url else ""
    print(json.dumps(value | {"served_at": url}, indent=1) if as_json else told + served)


def remove(
    name: str = typer.Argument(..., metavar="NAME", help="Id of a base that was pulled or added."),
    force: bool = typer.Option(False, "--force", help="Also if fine-tuned models need it; they can then not be served."),
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Take a base off the shelf. Its files are deleted if they are ours, and never if it was added from your own folder.

    A server that runs on the data directory lets its answers end first, and stops its engine.
    """
    from tunesmith.models.shelf import find_on_shelf
    from tunesmith.models.shelf import remove as remove_base

    needed_by = [] if force else _needed_by(name, data_dir)
    if needed_by:
        raise InvalidRequest(
            f"{name} is needed by {len(needed_by)} fine-tuned model(s) or job(s), such as {needed_by[0]}.",
            hint="--force removes it all the same.",
            code="in_use",
        )
    dirs = DataDir(data_dir.absolute())
    find_on_shelf(name, dirs.models)
    _ask_desk(dirs, "DELETE", name)
    source = remove_base(name, dirs.models)
    kept = f"; the files in {source.path} are untouched" if source.kind == "link" else ""
    _tell(source, as_json, f"{source.id} is removed{kept}.")


def _ask_desk(dirs: DataDir, method: str, base: str) -> str | None:
    """Tells the server that runs on this data directory to offer a base, or not to; its address, or None without one."""
    import openai

    from tunesmith.cli.desk import running_desk
    from tunesmith.cli.remote import connect

    url = running_desk(dirs)
    if url is None:
        return None
    with connect(url, None, dirs.root) as client:
        if method == "POST":
            client.post("/bases", body={"base": base}, cast_to=object)
        else:
            with suppress(openai.NotFoundError):
                client.delete(f"/bases/{quote(base, safe='')}", cast_to=object)
    return url


def _needed_by(base: str, data_dir: Path) -> list[str]:
    """Ids of the fine-tuned models made on `base`, and of the jobs that still train on it."""
    from tunesmith.cli.database import opened
    from tunesmith.db import jobs, models

    if not DataDir(data_dir.absolute()).database.exists():
        return []
    with opened(data_dir) as database, database.read() as connection:
        tuned = [model.id for model in models.list_all(connection) if model.base == base]
        newest, _ = jobs.list_page(connection, after=None, limit=NEWEST_JOBS)
        return tuned + [job.id for job in newest if job.order["model"] == base and job.status not in TERMINAL]


def _tell(source: "Source", as_json: bool, sentence: str) -> None:
    print(json.dumps(asdict(source), indent=1) if as_json else sentence)
