"""Copies of a whole database, taken while others write to it, and put back. Knows no rows but which blobs they name.

SQLite is copied by its online backup, PostgreSQL by its own programs `pg_dump` and `pg_restore`, in the state that a reader sees.
"""

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from sqlalchemy import Connection, inspect, select, union

from tunesmith.db.blobs import OWNERS
from tunesmith.db.session import Database
from tunesmith.errors import TunesmithError


def save(database: Database, target: Path) -> set[str]:
    """Writes the database as it is now to the file `target`. The hashes of the blobs that its rows name.

    Raises TunesmithError where PostgreSQL's programs are missing or fail.
    """
    if database.is_sqlite:
        _save_sqlite(database.path, target)
        copy = Database(target)
        try:
            with copy.read() as connection:
                return _hashes(connection)
        finally:
            copy.close()
    with database.read() as connection:
        snapshot = connection.exec_driver_sql("select pg_export_snapshot()").scalar_one()
        _run("pg_dump", database, "--format=custom", f"--snapshot={snapshot}", f"--file={target}")
        return _hashes(connection)


def load(source: Path, database: Database) -> None:
    """Puts a copy that `save` wrote of a PostgreSQL database in the place of what `database` holds. Raises TunesmithError."""
    _run("pg_restore", database, "--clean", "--if-exists", "--no-owner", "--single-transaction", str(source))


def is_empty(database: Database) -> bool:
    """Has it no tables?"""
    with database.read() as connection:
        return not inspect(connection).get_table_names()


def _save_sqlite(source: Path, target: Path) -> None:
    os.close(os.open(target, os.O_CREAT | os.O_RDWR, 0o600))
    old, new = sqlite3.connect(source), sqlite3.connect(target)
    try:
        old.backup(new)
    finally:
        new.close()
        old.close()


def _hashes(connection: Connection) -> set[str]:
    named = union(*(select(column).where(column.is_not(None)) for column in OWNERS))
    return set(connection.execute(named).scalars())


def _run(program: str, database: Database, *arguments: str) -> None:
    """One of PostgreSQL's programs. The password travels in the environment, not on the command line."""
    found = shutil.which(program)
    if found is None:
        hint = f"Install PostgreSQL's client programs (apt-get install postgresql-client), or use {program} elsewhere."
        raise TunesmithError(f"{program} is not here, and it alone copies PostgreSQL.", hint=hint)
    assert database.url is not None
    url = database.url.set(drivername="postgresql", password=None)
    environment = {**os.environ, **({"PGPASSWORD": str(database.url.password)} if database.url.password else {})}
    command = [found, f"--dbname={url.render_as_string()}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        hint = "Its version must be the server's, or newer."
        raise TunesmithError(f"{program} failed: {done.stderr.strip()[-500:]}", hint=hint)
