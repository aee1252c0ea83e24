"""Counts what was used, in memory, and adds it to the table once a second. A kill loses a second of counts, never an answer."""

import asyncio
import time
from dataclasses import replace

import structlog
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError

from tunesmith.api.auth import TOUCH_SECONDS, Callers
from tunesmith.db import keys, usage
from tunesmith.db.session import Database
from tunesmith.db.usage import COUNTS, Used
from tunesmith.errors import StorageFull

FLUSH_SECONDS = 0.5

log = structlog.get_logger("tunesmith.api")


class Meter:
    """Used from one event loop."""

    def __init__(self, database: Database, callers: Callers):
        self._database = database
        self._callers = callers
        self._counted: dict[tuple[str, ...], Used] = {}
        self._writing = asyncio.Lock()
        self._touched_at = time.monotonic()

    def add(self, used: Used) -> None:
        name = (used.day, used.project, used.key, used.model, used.adapter)
        before = self._counted.get(name)
        self._counted[name] = used if before is None else _sum(before, used)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            is_time = time.monotonic() - self._touched_at > TOUCH_SECONDS
            if self._counted or is_time:
                await self.flush(touch=is_time)

    async def flush(self, *, touch: bool) -> None:
        """Writes what was counted, and with `touch` when keys were last used. Counts that cannot be written are kept."""
        async with self._writing:
            counted, self._counted = self._counted, {}
            last_used: dict[str, int] = {}
            if touch:
                last_used, self._touched_at = self._callers.take_last_used(), time.monotonic()
            if not counted and not last_used:
                return
            try:
                await run_in_threadpool(self._write, list(counted.values()), last_used)
            except (SQLAlchemyError, StorageFull) as error:
                log.warning("usage could not be written and is kept", why=str(error))
                for used in counted.values():
                    self.add(used)

    def _write(self, counted: list[Used], last_used: dict[str, int]) -> None:
        with self._database.write() as connection:
            usage.add(connection, counted)
            keys.touch(connection, last_used)


def _sum(one: Used, other: Used) -> Used:
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in COUNTS})
