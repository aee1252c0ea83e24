"""`tunesmith restore FILE`: puts back what `tunesmith backup` wrote. Replaces nothing unless told, and compares all before."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.cli.backup import (
    DATA_DIR,
    DATABASE_URL,
    DATABASES,
    JSON,
    OVERWRITE,
    STORE,
    bar,
    report,
    settings_of,
    staging_folder,
)
from tunesmith.errors import InvalidRequest, TunesmithError

if TYPE_CHECKING:
    from tunesmith.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def restore(
    file: Path = typer.Argument(..., help="What `tunesmith backup` wrote."),
    data_dir: Path = DATA_DIR, database_url: str = DATABASE_URL, store: str = STORE, overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Put a server's data back from one file. Everything is compared with its sha256 before anything is replaced."""
    from tunesmith.cli import archive
    from tunesmith.cli.desk import running_desk

    settings = settings_of(data_dir, database_url, store)
    dirs = settings.dirs
    with archive.opened(file) as (tar, manifest):
        if running_desk(dirs):
            raise TunesmithError(f"A server runs on {data_dir}.", hint="Stop it first, or restore to another --data-dir.")
        _check_target(settings, manifest, overwrite)
        dirs.make()
        with staging_folder(dirs, "restore") as staging:
            with bar("Reading", sum(each["bytes"] for each in manifest["files"].values()), quiet=as_json) as seen:
                archive.extract(tar, manifest, staging, seen)
            _put_back(settings, staging)
    report(manifest, file, as_json, f"is restored to {data_dir}")


def _check_target(settings: "Settings", manifest: dict[str, Any], overwrite: bool) -> None:
    """Raises InvalidRequest for data of another kind, or where there is something already."""
    from tunesmith.db.copies import is_empty
    from tunesmith.db.session import Database

    kind = "sqlite" if settings.database_url is None else "postgresql"
    if manifest["database"] != kind:
        hint = "Pass the --database-url of an empty database." if kind == "sqlite" else "Leave --database-url out."
        raise InvalidRequest(f"The backup is of {manifest['database']}, not of {kind}.", hint=hint, param="database_url")
    hint = "Pass --overwrite to replace it, or another --data-dir."
    if not overwrite and (settings.dirs.database.exists() or settings.dirs.secret.exists()):
        raise InvalidRequest(f"There is a server's data in {settings.data_dir}.", hint=hint, param="data_dir")
    if settings.database_url is not None and not overwrite:
        database = Database(settings.dirs.database, settings.database_url)
        empty = is_empty(database)
        database.close()
        if not empty:
            raise InvalidRequest(f"{database.name} has tables.", hint=hint, param="database_url")


def _put_back(settings: "Settings", staging: Path) -> None:
    """Blobs are added, the rest is replaced; the rows come last, for they name the others."""
    from tunesmith.db import copies
    from tunesmith.db.session import Database
    from tunesmith.store import open_store, pieces

    dirs = settings.dirs
    store = open_store(dirs.blobs, settings.store)
    for blob in (staging / "blobs").glob("*/*"):
        store.put(pieces(open(blob, "rb")))  # noqa: SIM115  (closed when the pieces are read)
    shutil.rmtree(dirs.runs)
    (staging / "runs").mkdir(exist_ok=True, mode=0o700)
    os.replace(staging / "runs", dirs.runs)
    os.replace(staging / "secret", dirs.secret)
    if settings.database_url is None:
        for suffix in ("-wal", "-shm"):
            dirs.database.with_name(dirs.database.name + suffix).unlink(missing_ok=True)
        os.replace(staging / DATABASES[True], dirs.database)
        return
    database = Database(dirs.database, settings.database_url)
    try:
        copies.load(staging / DATABASES[False], database)
    finally:
        database.close()
