"""Keeps answers after they were sent: one transaction for all that wait, so that storing an answer delays none.

What waits is in memory for milliseconds: a normal end writes it first, a kill loses it. Used from the event loop.
"""

import asyncio

import structlog
from fastapi.concurrency import run_in_threadpool

from tunesmith.db import stored
from tunesmith.db.session import Database
from tunesmith.db.stored import Stored
from tunesmith.errors import TunesmithError
from tunesmith.store import BlobStore

MAX_WAITING = 256
"""Answers that may wait; whoever brings more waits with them."""

log = structlog.get_logger("tunesmith.api")


class Keeper:
    def __init__(self, database: Database, store: BlobStore):
        self._database = database
        self._store = store
        self._waiting: list[Stored] = []
        self._task: asyncio.Task[None] | None = None

    async def keep(self, row: Stored) -> None:
        """Returns at once unless very many wait."""
        self._waiting.append(row)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._write())
        if len(self._waiting) > MAX_WAITING:
            await self.settled()

    async def settled(self) -> None:
        """Returns when all that was kept before is in the database: what a client was answered, it finds."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _write(self) -> None:
        while self._waiting:
            rows, self._waiting = self._waiting, []
            try:
                await run_in_threadpool(self._add, rows)
            except TunesmithError as error:  # a full disk: the answers were sent, and there is nobody to tell
                log.error("answers could not be stored", num=len(rows), first=rows[0].id, why=str(error))

    def _add(self, rows: list[Stored]) -> None:
        laid_out = [stored.laid_out(self._store, row) for row in rows]
        with self._database.write() as connection:
            stored.add_all(connection, laid_out)
