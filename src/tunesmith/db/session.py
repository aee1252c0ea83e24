"""Opens the database and hands out transactions. Knows SQLite's traps, and no table.

SQLite runs with a write-ahead log and full synchronisation (a committed row survives a power cut). Every transaction that writes
begins IMMEDIATE: one that reads first and writes later would get "database is locked" in spite of the busy timeout.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from tunesmith.errors import StorageFull

BUSY_TIMEOUT_MS = 30_000
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON")


def _on_connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_on_begin` does
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


class Database:
    """One SQLite file; used from any thread."""

    def __init__(self, path: Path):
        self.path = path
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self.engine = create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=56, pool_timeout=60)
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "begin", _on_begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; it sees one state of the database."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes, alone. Raises StorageFull when the disk is full; nothing of it is kept then."""
        try:
            with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except OperationalError as error:
            if "disk is full" in str(error.orig):
                raise StorageFull(
                    f"The disk that holds {self.path.parent} is full.", hint="Free some space and try again; nothing was lost."
                ) from error
            raise

    def close(self) -> None:
        self.engine.dispose()
