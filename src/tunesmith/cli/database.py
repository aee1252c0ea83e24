"""Opens a data directory's database beside a server that may be running on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import NotFound
from tunesmith.paths import DataDir

if TYPE_CHECKING:
    from tunesmith.db.session import Database


@contextmanager
def opened(data_dir: Path, *, make: bool = False) -> Iterator["Database"]:
    """The database of `data_dir`, or the one that TUNESMITH_DATABASE_URL names. Raises NotFound when there is
    none, unless `make`."""
    from tunesmith.db.migrate import open_database

    dirs, url = DataDir(data_dir.absolute()), os.environ.get("TUNESMITH_DATABASE_URL")
    if make:
        dirs.make()
    elif not (dirs.database.exists() or (url and dirs.root.is_dir())):
        raise NotFound(f"There is no server's data in {data_dir}.", hint="Pass --data-dir, or start `tunesmith serve` there.")
    database = open_database(dirs.database, url)
    try:
        yield database
    finally:
        database.close()
