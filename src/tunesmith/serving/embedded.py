"""Our own engine as an upstream: started when it is first needed, started again after a crash, its adapters loaded again.

Imports no torch: the engine is a child process (`processes.py`), spoken to over HTTP on a Unix socket.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from tunesmith.errors import EngineFailed, InvalidRequest, TunesmithError
from tunesmith.serving.processes import EngineOrder, EngineProcess, start_engine
from tunesmith.serving.upstream import Answer, State

START_SECONDS = 300.0
"""Longest wait for an engine to answer: a large base is read from a slow disk."""
POLL_SECONDS = 0.05
STEADY_SECONDS = 60.0
"""An engine that ran this long before it died is not in a loop of crashes."""
LONGEST_BACKOFF = 30.0

Progress = Callable[[str, float], None]
"""Called while an engine starts, with its base and the seconds waited so far."""


def backoff_seconds(failures: int) -> float:
    """Wait before the next start after `failures` crashes in a row: 0, 0.5, 1, 2 ... 30 s."""
    return 0.0 if failures == 0 else min(LONGEST_BACKOFF, 0.5 * 2 ** (failures - 1))


class Embedded:
    """One engine process at a time, for one base at one precision."""

    def __init__(self, order: EngineOrder, progress: Progress = lambda base, seconds: None):
        self._order = order
        self._progress = progress
        self._process: EngineProcess | None = None
        self._session: aiohttp.ClientSession | None = None
        self._is_ready = False
        self._started_at = 0.0
        self._failures = 0
        self._loaded: dict[str, str] = {}
        """Adapter name -> content hash, of the process that runs now."""
        self._starting: asyncio.Task[None] | None = None
        self._loading = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the running engine."""
        return self._process.pid if self._process is not None and self._process.is_alive else None

    async def health(self) -> State:
        if self._process is None or not self._process.is_alive:
            return "down"
        return "ready" if self._is_ready else "starting"

    async def start(self) -> None:
        """Returns when the engine answers. Raises EngineFailed when it ended instead; the next call tries again.

        All callers wait for one start, and one that is cancelled does not end it for the others.
        """
        if await self.health() == "ready":
            return
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            # Read here too, for everyone who waited may have gone.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self._clear_away()
        await asyncio.sleep(backoff_seconds(self._failures))
        self._started_at = time.monotonic()
        self._process = start_engine(self._order)
        self._session = aiohttp.ClientSession(
            base_url="http://engine",
            connector=aiohttp.UnixConnector(str(self._process.socket), limit=0),
            headers={"Authorization": f"Bearer {self._process.key}"},
            timeout=aiohttp.ClientTimeout(total=None),
        )
        try:
            await self._wait(self._process)
        except EngineFailed:
            self._failures += 1
            raise
        self._is_ready = True

    async def _wait(self, process: EngineProcess) -> None:
        while not await self._answers():
            waited = time.monotonic() - self._started_at
            self._progress(self._order.base, waited)
            if not process.is_alive:
                raise EngineFailed(
                    f"The engine for {self._order.base} did not start: {process.describe_end()}.", hint=f"See {self._order.log}."
                )
            if waited > START_SECONDS:
                raise EngineFailed(
                    f"The engine for {self._order.base} did not answer for {waited:.0f} s.", hint=f"See {self._order.log}."
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _answers(self) -> bool:
        try:
            async with self._http().get("/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def _clear_away(self) -> None:
        """Takes down what is left of an engine that died or never got ready, and counts the crash."""
        if self._process is None:
            return
        if self._is_ready:
            self._failures = 1 if time.monotonic() - self._started_at > STEADY_SECONDS else self._failures + 1
        await self._take_down()

    async def stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError, EngineFailed):
                await self._starting
        await self._take_down()

    async def _take_down(self) -> None:
        self._is_ready = False
        self._loaded.clear()
        process, self._process = self._process, None
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if process is not None:
            await process.stop()

    async def models(self) -> list[str]:
        answer = await self._call("GET", "/v1/models")
        return [model["id"] for model in json.loads(await answer.read())["data"]]

    async def ensure_adapter(self, name: str, path: Path, content_hash: str) -> None:
        """Loads an adapter once; another content under the same name takes its place. Raises InvalidRequest, EngineFailed."""
        async with self._loading:
            if self._loaded.get(name) == content_hash:
                return
            if name in self._loaded:
                await self._drop(name)
            body = {"name": name, "path": str(path), "content_hash": content_hash}
            await _expect_ok(await self._call("POST", "/adapters", body))
            self._loaded[name] = content_hash

    async def drop_adapter(self, name: str) -> None:
        async with self._loading:
            if name in self._loaded:
                await self._drop(name)

    async def _drop(self, name: str) -> None:
        del self._loaded[name]
        await _expect_ok(await self._call("DELETE", f"/adapters/{quote(name)}"))

    async def ask(self, path: str, body: dict[str, Any]) -> Answer:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        try:
            return Answer(await self._http().request(method, path, json=body))
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(
                f"The engine for {self._order.base} stopped while it answered.", hint="Ask again; it is started anew."
            ) from error

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineFailed(f"The engine for {self._order.base} does not run.", hint="Ask again; it is started anew.")
        return self._session


async def _expect_ok(answer: Answer) -> None:
    """Raises what the engine said, as our error: InvalidRequest for its 4xx, EngineFailed for the rest."""
    text = await answer.read()
    if answer.status < 400:
        return
    error = json.loads(text)["error"]
    kind: type[TunesmithError] = InvalidRequest if answer.status < 500 else EngineFailed
    raise kind(error["message"], param=error.get("param"), code=error.get("code"))
