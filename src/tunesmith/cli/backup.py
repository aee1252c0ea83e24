"""`tunesmith backup FILE`: a server's data as one file, taken while it serves. `restore.py` puts it back.

    database.db | database.dump   the rows (SQLite | PostgreSQL), in one state
    secret                        without it no API key works: keep a backup as safe as the server
    blobs/...                     the files that those rows name
    runs/...                      recipes, events, checkpoints, adapters

Bases and engines are not in it: they are fetched again. The rows are copied first, so that whatever they name was there before; a
blob that a client deletes between the two steps shows itself by being missing, and the copy begins again.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.errors import InvalidRequest, NotFound, TunesmithError
from tunesmith.paths import DataDir

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunesmith.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
DATABASE_URL = typer.Option(None, envvar="TUNESMITH_DATABASE_URL", help="The server's --database-url, if it has one.")
STORE = typer.Option(None, envvar="TUNESMITH_STORE", help="The server's --store, if it has one.")
JSON = typer.Option(False, "--json", help="Print JSON.")
OVERWRITE = typer.Option(False, "--overwrite", help="Replace what is there.")
TRIES = 5
DATABASES = {True: "database.db", False: "database.dump"}
"""Is it SQLite? -> the name of its copy."""


@app.command()
def backup(
    file: Path = typer.Argument(..., help="Where to write it."),
    data_dir: Path = DATA_DIR, database_url: str = DATABASE_URL, store: str = STORE, overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Copy a server's data to one file, while it serves."""
    from tunesmith.cli import archive

    settings = settings_of(data_dir, database_url, store)
    dirs, target = settings.dirs, file.absolute()
    if not dirs.secret.exists():
        raise NotFound(f"There is no server's data in {data_dir}.", hint="Pass --data-dir.")
    if target.exists() and not overwrite:
        raise InvalidRequest(f"{file} is there already.", hint="Pass --overwrite, or another name.", param="file")
    if not target.parent.is_dir():
        raise NotFound(f"There is no folder {target.parent}.", hint="Make it first.")
    with staging_folder(dirs, "backup") as staging:
        facts = _stage(settings, staging)
        total = sum(path.stat().st_size for path in archive.files_of(staging))
        with bar("Writing", total, quiet=as_json) as seen:
            manifest = archive.write(staging, target, facts, seen)
    report(manifest, file, as_json, "is written")


def settings_of(data_dir: Path, database_url: str | None, store: str | None) -> "Settings":
    from tunesmith.settings import Settings

    return Settings(data_dir=data_dir, database_url=database_url, store=store)


@contextmanager
def staging_folder(dirs: DataDir, what: str) -> Iterator[Path]:
    """A folder beside the data, on the same disk, so that files are linked and renamed, not copied; gone at the end."""
    folder = dirs.root / f".{what}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def bar(title: str, total: int, *, quiet: bool) -> "Iterator[Callable[[int], None]]":
    """A progress bar of bytes, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        task = bars.add_task(title, total=total)
        yield lambda num_bytes: bars.advance(task, num_bytes)


# -- backup -----------------------------------------------------------------------------------------------------------


def _stage(settings: "Settings", staging: Path) -> dict[str, Any]:
    """Everything as links in `staging`; what the manifest tells of it."""
    from tunesmith.db import copies
    from tunesmith.db.migrate import newest, open_database
    from tunesmith.store import open_store

    dirs = settings.dirs
    database = open_database(dirs.database, settings.database_url)
    store = open_store(dirs.blobs, settings.store)
    try:
        for attempt in range(TRIES):
            copy = staging / DATABASES[database.is_sqlite]
            copy.unlink(missing_ok=True)
            hashes = copies.save(database, copy)
            try:
                for sha256 in sorted(hashes):
                    target = staging / "blobs" / sha256[:2] / sha256
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if not target.exists():
                        store.fetch(sha256, target)
                break
            except NotFound as error:
                if attempt == TRIES - 1:
                    hint = "Files are deleted all the time, or one is lost: try again when it is quieter."
                    raise TunesmithError(error.message, hint=hint) from error
        is_sqlite = database.is_sqlite
    finally:
        database.close()
    os.link(dirs.secret, staging / "secret")
    _link_tree(dirs.runs, staging / "runs")
    return {"created": int(time.time()), "database": "sqlite" if is_sqlite else "postgresql", "revision": newest()}


def _link_tree(source: Path, target: Path) -> None:
    """What is written once is linked; what grows (events, logs) is copied. What vanishes meanwhile, a worker has replaced."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                (shutil.copyfile if path.suffix in {".jsonl", ".log"} else os.link)(path, place)
            except FileNotFoundError:
                continue
    for checkpoint in target.glob("*/checkpoints/step-*"):
        if not (source / checkpoint.relative_to(target)).is_dir():
            shutil.rmtree(checkpoint)


def report(manifest: dict[str, Any], file: Path, as_json: bool, what: str) -> None:
    sizes = [each["bytes"] for each in manifest["files"].values()]
    if as_json:
        facts = {name: value for name, value in manifest.items() if name != "files"}
        print(json.dumps({"file": str(file), "num_files": len(sizes), "bytes": sum(sizes), **facts}))
    else:
        print(f"{file} {what}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB.")
