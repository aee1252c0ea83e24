"""Opens the database and hands out transactions. Knows the traps of SQLite and PostgreSQL, and no table.

Both keep the same promises: a reader sees one state of the database, a committed row survives a power cut, and writers are
alone, one after the other, so that what a writer has read stays true until it commits.

SQLite runs with a write-ahead log and full synchronisation. Every transaction that writes begins IMMEDIATE: one that reads
first and writes later would get "database is locked" in spite of the busy timeout. On PostgreSQL a writer takes an advisory
lock first. Row locks would let more writers in at a time, but a queue of short transactions is not what limits this program
(bench/api/jobs_table.py), and what holds on one database then holds on the other. It also makes `num` the order of commits,
so that no page of a list misses a row.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.exc import ArgumentError, DataError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler

from tunesmith.errors import Busy, InvalidRequest, StorageFull, TunesmithError

BUSY_TIMEOUT_MS = 30_000
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON")
POOL = {"pool_size": 8, "max_overflow": 56, "pool_timeout": 60}

WRITER = 7_461_113
"""The advisory lock of whoever writes."""
SERVER_SETTINGS = {
    "lock_timeout": BUSY_TIMEOUT_MS,
    "idle_in_transaction_session_timeout": 60_000,  # a writer whose machine is gone keeps nobody waiting longer
    "tcp_keepalives_idle": 30,
    "random_page_cost": 1.1,  # of an SSD; with a disk's 4, PostgreSQL walks through the table to the first job that waits
}
READS: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
WRITES: dict[str, Any] = {"isolation_level": "READ COMMITTED"}


class Database:
    """One SQLite file, or one PostgreSQL database; used from any thread."""

    def __init__(self, path: Path, url: str | None = None):
        """`url` is postgresql://...; without it the database is the file `path`."""
        self.path = path
        self.num_writes = 0
        """Transactions through this object that changed something: while it stays, what was read before is still true of them."""
        self.url = None if url is None else to_url(url)
        self.engine = _open_sqlite(path) if self.url is None else _open_postgresql(self.url)
        self._turn = threading.Lock()
        event.listen(self.engine, "after_cursor_execute", _note_change)

    @property
    def is_sqlite(self) -> bool:
        return self.url is None

    @property
    def name(self) -> str:
        """For people; without a password."""
        return str(self.path) if self.url is None else str(self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; it sees one state of the database. Raises InvalidRequest, Busy."""
        options = {} if self.is_sqlite else READS
        with self._telling(), self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes, alone. Raises StorageFull when the disk is full, InvalidRequest, Busy; nothing of it is
        kept then.

        Writers of this process wait for each other here, and only the first of them in the database: SQLite would let them sleep
        and try, up to a tenth of a second at a time, and on PostgreSQL each would hold a connection.
        """
        options = {"writes": True} if self.is_sqlite else WRITES
        with self._turn, self._telling(), self.engine.connect().execution_options(**options) as connection, connection.begin():
            if not self.is_sqlite:
                connection.exec_driver_sql(f"select pg_advisory_xact_lock({WRITER})")
            yield connection
            has_changed = connection.info.pop("has_changed", False)
        self.num_writes += has_changed

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            if "disk is full" in str(error.orig) or "No space left" in str(error.orig):
                raise StorageFull(
                    f"The disk that holds {self.name} is full.", hint="Free some space and try again; nothing was lost."
                ) from error
            if not self.is_sqlite:
                reason = str(error.orig).strip().partition("\n")[0]
                raise Busy(f"The database does not answer: {reason}.", hint="Try again.") from error
            raise
        except (DataError, UnicodeEncodeError) as error:  # NUL or half a surrogate in a text, a number out of range
            raise InvalidRequest("A value has characters or a size that cannot be stored.", hint="Change it.") from error

    def close(self) -> None:
        self.engine.dispose()


def to_url(text: str) -> URL:
    """A PostgreSQL address with our driver. Raises InvalidRequest."""
    hint = "Write it like postgresql://user:password@host/name."
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InvalidRequest("The database URL cannot be read.", hint=hint, param="database_url") from error
    if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise InvalidRequest(f"There is no database {url.drivername}://.", hint=hint, param="database_url")
    return url.set(drivername="postgresql+psycopg")


# -- SQLite -----------------------------------------------------------------------------------------------------------


def _open_sqlite(path: Path) -> Engine:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(f"sqlite:///{path}", **POOL)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_on_begin` does
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _note_change(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: DefaultExecutionContext | None, many: bool
) -> None:
    """Most transactions that may write look for work and find none; an UPDATE that met no row changes nothing.

    With RETURNING, SQLite's driver counts rows only when they are fetched: such a statement counts as a change.
    """
    if context is None or context.isinsert:
        connection.info["has_changed"] = True
    elif context.isupdate or context.isdelete:
        returns = isinstance(context.compiled, SQLCompiler) and bool(context.compiled.effective_returning)
        if returns or cursor.rowcount != 0:
            connection.info["has_changed"] = True


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def _open_postgresql(url: URL) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in SERVER_SETTINGS.items())
    arguments = {"options": options, "connect_timeout": 10, "application_name": "tunesmith"}
    try:
        return create_engine(url, **POOL, pool_pre_ping=True, json_serializer=_to_json, connect_args=arguments)
    except ImportError as error:
        raise TunesmithError("PostgreSQL needs a driver.", hint="Install it: pip install 'tunesmith[postgres]'.") from error


def _to_json(value: Any) -> str:
    """JSON that PostgreSQL can take apart again: it has no NUL and no half surrogate, which become U+FFFD."""
    text = json.dumps(value)
    return json.dumps(_storable(value)) if "\\u0000" in text or "\\ud" in text else text


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_storable(key): _storable(each) for key, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, (list, tuple)) else value
