"""Which adapters are loaded on one engine: a number of places, the least recently used gives way, and none that is in use.

Knows no HTTP: it is told how to load and to unload. Used from one event loop.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tunesmith.errors import Busy, TunesmithError
from tunesmith.serving.upstream import Adapter

Do = Callable[[Adapter], Awaitable[None]]


class Place:
    """One adapter that is loaded, or being loaded."""

    def __init__(self, adapter: Adapter, loading: "asyncio.Task[None]"):
        self.adapter = adapter
        self.loading = loading
        self.holders = 0
        """Requests whose answer has not ended."""
        self.is_dropped = False
        """Unloaded when the last holder lets go."""


class Places:
    """`load` is called once for an adapter however many ask for it; for one adapter, loading and unloading take turns."""

    def __init__(self, num_places: int, wait_seconds: float, load: Do, unload: Do):
        self._num_places = num_places
        self._wait_seconds = wait_seconds
        self._load = load
        self._unload = unload
        self._places: dict[str, Place] = {}
        """By engine-side name; the least recently used first."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def adapters(self) -> list[Adapter]:
        """Those that have a place, the most recently used last."""
        return [place.adapter for place in self._places.values()]

    async def hold(self, adapter: Adapter) -> Place:
        """The adapter's place, loaded; it stays until `release`. Raises Busy after `wait_seconds`, and what loading raises."""
        place = self._places.get(adapter.name) or await self._take(adapter)
        place.holders += 1
        place.is_dropped = False
        self._places[adapter.name] = self._places.pop(adapter.name)
        try:
            # Others wait for it too: who leaves does not end it.
            await asyncio.shield(place.loading)
        except BaseException:
            self.release(place)
            raise
        return place

    def release(self, place: Place) -> None:
        place.holders -= 1
        if place.holders == 0:
            if place.is_dropped:
                self._leave(place)
            self._freed.set()

    def drop(self, adapter: Adapter) -> None:
        """Gives the adapter's place back as soon as nobody holds it."""
        place = self._places.get(adapter.name)
        if place is not None and place.holders:
            place.is_dropped = True
        elif place is not None:
            self._leave(place)

    def lost(self, place: Place) -> None:
        """The engine does not know the adapter any more: the next to hold it loads it again."""
        if self._places.get(place.adapter.name) is place:
            del self._places[place.adapter.name]
            self._freed.set()

    def forget(self) -> None:
        """The engine is gone, and all that it had loaded."""
        self._places.clear()
        self._freed.set()

    async def settle(self) -> None:
        """Waits for what is being loaded and unloaded; errors are those of whoever asked."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, adapter: Adapter) -> Place:
        """A place for an adapter that has none; first come, first served."""
        try:
            async with asyncio.timeout(self._wait_seconds), self._turn:
                while adapter.name not in self._places:
                    if len(self._places) < self._num_places:
                        self._enter(adapter, None)
                    elif free := next((place for place in self._places.values() if not place.holders), None):
                        del self._places[free.adapter.name]
                        self._enter(adapter, free)
                    else:
                        self._freed.clear()
                        await self._freed.wait()
                return self._places[adapter.name]
        except TimeoutError as error:
            message = f"All {self._num_places} places for adapters were in use for {self._wait_seconds:.0f} s."
            raise Busy(message, hint="Ask again, or raise TUNESMITH_MAX_ADAPTERS.", code="no_adapter_place") from error

    def _enter(self, adapter: Adapter, instead_of: Place | None) -> None:
        place = Place(adapter, self._go(self._exchange(adapter, instead_of)))
        place.loading.add_done_callback(lambda task: self._failed(place, task))
        self._places[adapter.name] = place

    def _failed(self, place: Place, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is not None:
            self.lost(place)

    async def _exchange(self, adapter: Adapter, instead_of: Place | None) -> None:
        if instead_of is not None:
            with suppress(TunesmithError):  # one that the engine will not unload must not stop the other
                await self._locked(instead_of.adapter, self._unload)
        await self._locked(adapter, self._load)

    async def _locked(self, adapter: Adapter, do: Do) -> None:
        async with self._locks[adapter.name]:
            await do(adapter)

    def _leave(self, place: Place) -> None:
        self.lost(place)
        self._go(self._locked(place.adapter, self._unload))

    def _go(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task
