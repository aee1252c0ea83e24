"""Who asks: the one parser of the Authorization header, and the keys that were seen lately: few requests read the database.

What is remembered is at most a second behind the table: a key that is revoked, has expired or was changed elsewhere is refused
within a second, and at once where it is revoked through this server.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from tunesmith.api.strangers import Strangers
from tunesmith.db import keys, projects
from tunesmith.db.keys import Key
from tunesmith.db.projects import Project
from tunesmith.db.session import Database
from tunesmith.errors import TunesmithError, Unauthorized
from tunesmith.types import Limits, unix_now

MAX_KEY_LENGTH = 200
FRESH_SECONDS = 0.4
"""Younger entries are believed; older ones too, but are read again meanwhile."""
STALE_SECONDS = 0.9
"""Older entries are believed no more: the request waits for the table."""
FORGET_SECONDS = 600.0
TOUCH_SECONDS = 60
"""`last_used` is written this often."""


def bearer(values: list[str]) -> str:
    """The key in `Authorization: Bearer KEY`. Raises Unauthorized when there is none, or more than one."""
    if not values:
        raise Unauthorized("You didn't provide an API key.", hint="Send it as `Authorization: Bearer YOUR_KEY`.")
    scheme, _, key = values[0].partition(" ")
    key = key.strip()
    if len(values) != 1 or scheme.lower() != "bearer" or not key or len(key) > MAX_KEY_LENGTH:
        raise Unauthorized("The Authorization header cannot be read.", hint="Send it once, as `Authorization: Bearer YOUR_KEY`.")
    return key


@dataclass(frozen=True)
class Caller:
    """A key, the project that it belongs to, and when both were read (seconds of a monotonic clock)."""

    key: Key
    project: Project
    read_at: float


class Callers:
    """The keys that were used lately. Used from one event loop; entries are keyed by the sha256 of the whole key."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic):
        self._database = database
        self._clock = clock
        self._known: dict[bytes, Caller] = {}
        self._reading: dict[bytes, asyncio.Task[Caller]] = {}
        self._last_used: dict[str, int] = {}
        self._limits: dict[str, Limits | None] = {}
        self._generation = 0
        self.strangers = Strangers(clock)
        with database.read() as connection:
            self._pepper = keys.pepper(connection)

    async def check(self, values: list[str], address: str = "") -> Caller:
        """The caller with these Authorization headers. Raises Unauthorized; RateLimited for an unknown key from an address that
        came with too many wrong ones."""
        text = bearer(values)
        name = hashlib.sha256(text.encode()).digest()
        known = self._known.get(name)
        age = self._clock() - known.read_at if known is not None else STALE_SECONDS
        if known is None or age >= STALE_SECONDS:
            known = await self._read_for(address, name, text)
        elif age >= FRESH_SECONDS:
            self._read(name, text)
        now = unix_now()
        if not known.key.works_at(now):
            raise Unauthorized("The API key has expired.", hint="Make another one, or rotate keys before they expire.")
        self._last_used[known.key.id] = now
        return known

    async def _read_for(self, address: str, name: bytes, text: str) -> Caller:
        if name not in self._known:
            self.strangers.check(address)
        try:
            return await asyncio.shield(self._read(name, text))
        except Unauthorized:
            self.strangers.note(address)
            raise

    def limits_of(self, project: str) -> Limits | None:
        """Of a project whose caller was checked."""
        return self._limits.get(project)

    def forget(self) -> None:
        """Keys or projects were changed through this server: all is read again."""
        self._generation += 1
        self._known.clear()
        self._reading.clear()

    def take_last_used(self) -> dict[str, int]:
        """Key id -> time, of those used since this was asked before; forgets keys that nobody uses any more."""
        used, self._last_used = self._last_used, {}
        oldest = self._clock() - FORGET_SECONDS
        self._known = {name: caller for name, caller in self._known.items() if caller.read_at > oldest}
        return used

    def _read(self, name: bytes, text: str) -> "asyncio.Task[Caller]":
        """The one reading of this key that is under way; who waits for it may leave."""
        if name not in self._reading:
            task = self._reading[name] = asyncio.ensure_future(self._look_up(name, text, self._generation))
            task.add_done_callback(lambda task: self._done(name, task))
        return self._reading[name]

    def _done(self, name: bytes, task: "asyncio.Task[Caller]") -> None:
        if self._reading.get(name) is task:
            del self._reading[name]
        if not task.cancelled():
            task.exception()  # read here too, for nobody waits for one that only refreshes

    async def _look_up(self, name: bytes, text: str, generation: int) -> Caller:
        read_at = self._clock()
        try:
            key, project = await run_in_threadpool(_load, self._database, text)
        except TunesmithError:
            self._known.pop(name, None)
            raise
        caller = Caller(key, project, read_at)
        self._limits[project.id] = project.limits
        if generation == self._generation:
            self._known[name] = caller
        return caller


def _load(database: Database, text: str) -> tuple[Key, Project]:
    """Raises Unauthorized."""
    with database.read() as connection:
        key = keys.check(connection, text)
        project = projects.get(connection, key.project)
    if project.archived is not None:
        raise Unauthorized(f"The project {project.id} is archived.", hint="Use a key of another project.")
    return key, project
