"""An engine that the desk drives: started when it is first needed, started again after a crash, its adapters loaded again.

Knows no engine by name: what differs between them is a `Kind` (`embedded.py`, `vllm.py`, `openai.py`). Imports no torch.
"""

import asyncio
import time
from contextlib import ExitStack, suppress
from typing import Any, Protocol

import structlog

from tunesmith.errors import Busy, EngineFailed, InvalidRequest
from tunesmith.serving.answer import Answer
from tunesmith.serving.client import Client
from tunesmith.serving.memory import Memory
from tunesmith.serving.places import Place, Places
from tunesmith.serving.processes import EngineProcess
from tunesmith.serving.upstream import Adapter, State

POLL_SECONDS = 0.1
WATCH_SECONDS = 0.2
STEADY_SECONDS = 60.0
"""An engine that ran this long before it died is not in a loop of crashes."""
LONGEST_BACKOFF = 30.0
GIVE_UP = 5
"""After so many crashes in a row an engine is started again only when it is asked."""
NOTICE_SECONDS = 1.0
"""How long the end of a process may come after the end of its connections."""

log = structlog.get_logger("tunesmith.serving")


class Kind(Protocol):
    """What differs between engines."""

    label: str
    """Opens sentences: `The engine for tunesmith/tiny`."""
    need_bytes: int
    """Memory that it takes; 0 for one that runs elsewhere."""
    start_seconds: float
    """Longest wait for it to answer."""
    log_hint: str
    """Where to look when it fails."""

    @property
    def model(self) -> str | None:
        """What the engine calls its base; None where it has several, and is asked by the name that the client said."""
        ...

    def launch(self) -> tuple[EngineProcess | None, Client]: ...

    async def state(self, client: Client, process: EngineProcess | None) -> State:
        """`ready` or `loading`. Raises EngineFailed while nobody answers."""
        ...

    async def models(self, client: Client) -> list[str]: ...

    async def load(self, client: Client, adapter: Adapter) -> None: ...

    async def unload(self, client: Client, adapter: Adapter) -> None: ...

    async def metrics(self, client: Client) -> str: ...

    async def set_threads(self, client: Client, num_threads: int) -> None: ...


def backoff_seconds(failures: int) -> float:
    """Wait before the next start after `failures` crashes in a row: 0, 0.5, 1, 2 ... 30 s."""
    return 0.0 if failures == 0 else min(LONGEST_BACKOFF, 0.5 * 2 ** (failures - 1))


class Driven:
    """An `Upstream`: one engine at a time of one kind."""

    def __init__(self, kind: Kind, *, memory: Memory, num_places: int = 16, wait_seconds: float = 30.0):
        self._kind = kind
        self._memory = memory
        self._places = Places(num_places, wait_seconds, self._load, self._unload)
        self._process: EngineProcess | None = None
        self._client: Client | None = None
        self._is_ready = False
        self._is_draining = False
        self._last = State("down")
        self._started_at = 0.0
        self._failures = 0
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._num_threads: int | None = None
        """Set once somebody asked for another number than that of the start."""
        self._open: set[Answer] = set()
        """Answers whose connection is in use."""
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pid(self) -> int | None:
        """Of the running engine."""
        return self._process.pid if self._process is not None and self._process.is_alive else None

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def need_bytes(self) -> int:
        return 0 if self._process is not None else self._kind.need_bytes

    @property
    def is_ready(self) -> bool:
        return self._is_ready and not self._is_draining and (self._process is None or self._process.is_alive)

    # -- start, watch, stop -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """All callers wait for one start, and one that is cancelled does not end it for the others."""
        if self._is_draining:
            raise Busy(f"{self._kind.label} is being stopped.", hint="Ask again later.", code="engine_draining")
        if self.is_ready:
            return
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            # Read here too, for everyone who waited may have gone.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        adapters = self._places.adapters
        await self._clear_away()
        self._last = State("loading", stage="waiting after a crash" if self._failures else "starting")
        await asyncio.sleep(backoff_seconds(self._failures))
        self._started_at = time.monotonic()
        try:
            with self._memory.promised(self._kind.label, self._kind.need_bytes):
                self._process, self._client = self._kind.launch()
                await self._until_ready(self._process, self._client)
        except (EngineFailed, Busy, InvalidRequest) as error:
            self._failures += not isinstance(error, Busy)
            self._last = State("down", stage=str(error))
            raise
        self._is_ready = True
        await self._load_again(adapters)
        if self._num_threads is not None:
            await self.set_threads(self._num_threads)
        if self._process is not None and (self._watching is None or self._watching.done()):
            self._watching = asyncio.create_task(self._watch())

    async def _until_ready(self, process: EngineProcess | None, client: Client) -> None:
        while True:
            with suppress(EngineFailed):
                self._last = await self._kind.state(client, process)
                if self._last.status == "ready":
                    return
            waited = time.monotonic() - self._started_at
            if process is None or not process.is_alive:
                why = process.describe_end() if process is not None else "nobody answers there"
                raise self._not_started(f"{self._kind.label} did not start: {why}.")
            if waited > self._kind.start_seconds:
                raise self._not_started(f"{self._kind.label} did not answer for {waited:.0f} s.")
            await asyncio.sleep(POLL_SECONDS)

    def _not_started(self, message: str) -> EngineFailed:
        return EngineFailed(message, hint=self._kind.log_hint, code="engine_start_failed")

    async def _load_again(self, adapters: list[Adapter]) -> None:
        """What the engine before this one had loaded; an adapter that is gone since is left out."""
        for adapter in adapters:
            with suppress(EngineFailed, InvalidRequest, Busy):
                await self.ensure_adapter(adapter)

    async def _watch(self) -> None:
        """Starts the engine again when it dies, so that the next question does not wait."""
        while self._failures < GIVE_UP:
            await asyncio.sleep(WATCH_SECONDS)
            process = self._process
            if self._is_draining or self._starting is None or not self._starting.done() or process is None or process.is_alive:
                continue
            log.warning("an engine ended and is started again", engine=self._kind.label, why=process.describe_end())
            with suppress(EngineFailed, Busy, InvalidRequest):
                await self.start()

    async def _clear_away(self) -> None:
        """Takes down what is left of an engine that died or never got ready, and counts the crash."""
        if self._is_ready:
            self._failures = 1 if time.monotonic() - self._started_at > STEADY_SECONDS else self._failures + 1
        await self._take_down()

    async def drain(self, seconds: float) -> None:
        self._is_draining = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)

    async def stop(self) -> None:
        self._is_draining = True
        for task in (self._watching, self._starting):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, EngineFailed, Busy, InvalidRequest):
                    await task
        await self._take_down()
        self._last = State("down")

    async def _take_down(self) -> None:
        self._is_ready = False
        self._places.forget()
        process, self._process = self._process, None
        client, self._client = self._client, None
        if process is not None:
            await process.stop()
        for answer in list(self._open):
            answer.abort()
        if client is not None:
            await client.close()

    # -- what it is asked ---------------------------------------------------------------------------------------------

    async def health(self) -> State:
        if self._client is None or (self._process is not None and not self._process.is_alive):
            return self._last if self._last.status == "loading" else State("down", stage=self._last.stage)
        if self._is_ready:
            try:
                self._last = await self._kind.state(self._client, self._process)
            except EngineFailed as error:
                if self._process is None:  # elsewhere, where nobody but its answers tells
                    return State("down", stage=str(error))
        return State("draining", 1.0, "", self._last.running, self._last.waiting) if self._is_draining else self._last

    async def models(self) -> list[str]:
        return await self._kind.models(self._now())

    async def metrics(self) -> str:
        return await self._kind.metrics(self._now())

    async def set_threads(self, num_threads: int) -> None:
        self._num_threads = num_threads
        if self.is_ready:
            with suppress(EngineFailed):  # it is told again when it starts again
                await self._kind.set_threads(self._now(), num_threads)

    async def ensure_adapter(self, adapter: Adapter) -> None:
        self._places.release(await self._places.hold(adapter))

    async def drop_adapter(self, adapter: Adapter) -> None:
        self._places.drop(adapter)
        await self._places.settle()

    async def _load(self, adapter: Adapter) -> None:
        await self._kind.load(self._now(), adapter)

    async def _unload(self, adapter: Adapter) -> None:
        await self._kind.unload(self._now(), adapter)

    async def ask(self, path: str, body: dict[str, Any], adapter: Adapter | None = None) -> Answer:
        with ExitStack() as things:
            self._enter(things)
            await self.start()
            if adapter is None:
                answer = await self._post(path, body, self._kind.model or body["model"], things)
            else:
                answer = await self._with_adapter(path, body, adapter, things)
            answer.on_end(things.pop_all().close)
        return answer

    async def _with_adapter(self, path: str, body: dict[str, Any], adapter: Adapter, things: ExitStack) -> Answer:
        place = await self._hold(adapter, things)
        answer = await self._post(path, body, adapter.name, things)
        if answer.status == 404:
            # The engine has forgotten it, as one does that was started anew behind our back: register it once more.
            self._places.lost(place)
            await self._hold(adapter, things)
            answer = await self._post(path, body, adapter.name, things)
        return answer

    async def _hold(self, adapter: Adapter, things: ExitStack) -> Place:
        place = await self._places.hold(adapter)
        things.callback(self._places.release, place)
        return place

    async def _post(self, path: str, body: dict[str, Any], name: str, things: ExitStack) -> Answer:
        """An answer that has begun; `things` close its connection. Raises EngineFailed."""
        try:
            response = await self._now().request("POST", path, body | {"model": name})
            things.callback(response.close)
            answer = Answer(response, names=(name, body["model"]))
            self._open.add(answer)
            things.callback(self._open.discard, answer)
            await answer.begin()
        except EngineFailed:
            await self._notice()
            raise
        return answer

    async def _notice(self) -> None:
        """Waits a moment for the end of a process whose connections ended, so that the next start sees it."""
        process, until = self._process, time.monotonic() + NOTICE_SECONDS
        while process is not None and process.is_alive and time.monotonic() < until:
            await asyncio.sleep(0.01)

    def _enter(self, things: ExitStack) -> None:
        self._in_flight += 1
        self._idle.clear()
        things.callback(self._leave)

    def _leave(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    def _now(self) -> Client:
        if self._client is None:
            raise EngineFailed(f"{self._kind.label} does not run.", hint="Ask again; it is started anew.")
        return self._client
