"""Responses that are computed while no client waits: their tasks, and their events for whoever comes to look. Used from one loop.

What has ended is in the database; its events stay here for a while, for a client that lost its stream. At the end of the server
tasks are cancelled; their rows say that they are open, and the next start does them again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

from tunesmith.schemas.response_events import Turned

Json = dict[str, Any]

KEPT_SECONDS = 600.0
"""How long the events of an ended response can still be followed."""


class Run:
    """One response under way. `turned.response` is what is known of it now."""

    def __init__(self, turned: Turned):
        self.turned = turned
        self.ended_at: float | None = None
        self.task: asyncio.Task[None] | None = None
        self._events: list[Json] = []
        self._news = asyncio.Event()

    def add(self, events: list[Json]) -> None:
        self._events += events
        self._tell()

    def end(self) -> None:
        self.ended_at = time.monotonic()
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def follow(self, after: int = -1) -> AsyncIterator[Json]:
        """Its events with a sequence number above `after`, to the last."""
        next_one = after + 1
        while True:
            news = self._news
            for event in self._events[next_one:]:
                yield event
                next_one += 1
            if self.ended_at is not None and next_one >= len(self._events):
                return
            if next_one >= len(self._events):
                await news.wait()


class Background:
    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def start(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        now = time.monotonic()
        self._runs = {name: one for name, one in self._runs.items() if one.ended_at is None or now - one.ended_at < KEPT_SECONDS}
        self._runs[run.turned.response["id"]] = run
        run.task = asyncio.ensure_future(work)
        run.task.add_done_callback(lambda _: run.end())

    def find(self, response_id: str) -> Run | None:
        return self._runs.get(response_id)

    async def cancel(self, response_id: str) -> Run | None:
        """Ends the work on it, if there is any; None where it had ended. Its events are left as they are."""
        run = self._runs.get(response_id)
        if run is None or run.task is None or run.task.done():
            return None
        run.task.cancel()
        with suppress(asyncio.CancelledError):
            await run.task
        return run

    def forget(self, response_id: str) -> None:
        self._runs.pop(response_id, None)

    async def stop(self) -> None:
        for response_id in list(self._runs):
            await self.cancel(response_id)
