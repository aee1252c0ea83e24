"""Several engines of one base as one: each question goes to the one with the least to do, and to another if that one dies.

Knows no processes. A question whose answer has not begun is asked again; one that has begun cannot, for its client has read it.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from tunesmith.errors import EngineFailed
from tunesmith.serving.answer import Answer
from tunesmith.serving.upstream import Adapter, State, Upstream

ATTEMPTS = 3
"""How often a question is asked in all. Not more: it may be the question that the engines die of."""


class Replicas:
    """At least one upstream, all of the same base and precision."""

    def __init__(self, upstreams: Sequence[Upstream]):
        self.upstreams = tuple(upstreams)

    async def start(self) -> None:
        """Returns when all of them answer. Raises what the first of them raised that did not start."""
        await _all(upstream.start() for upstream in self.upstreams)

    async def start_one(self) -> None:
        """Returns when one of them answers; the others start meanwhile. Raises what start raises."""
        if not any(upstream.is_ready for upstream in self.upstreams):
            await self._least_busy().start()

    async def states(self) -> list[State]:
        return list(await asyncio.gather(*(upstream.health() for upstream in self.upstreams)))

    async def ask(self, path: str, body: dict[str, Any], adapter: Adapter | None = None) -> Answer:
        """Raises what the upstream raises, EngineFailed only after ATTEMPTS."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._least_busy().ask(path, body, adapter)
            except EngineFailed as error:
                if error.code == "engine_start_failed" and not any(upstream.is_ready for upstream in self.upstreams):
                    raise
        return await self._least_busy().ask(path, body, adapter)

    async def ensure_adapter(self, adapter: Adapter) -> None:
        """On one of them; the others load it when they are asked."""
        await self._least_busy().ensure_adapter(adapter)

    async def drop_adapter(self, adapter: Adapter) -> None:
        """Wherever it is loaded; starts nothing."""
        await _all(upstream.drop_adapter(adapter) for upstream in self.upstreams if upstream.is_ready)

    async def set_threads(self, num_threads: int) -> None:
        await _all(upstream.set_threads(num_threads) for upstream in self.upstreams)

    async def drain(self, seconds: float) -> None:
        await _all(upstream.drain(seconds) for upstream in self.upstreams)

    async def stop(self) -> None:
        await _all(upstream.stop() for upstream in self.upstreams)

    def _least_busy(self) -> Upstream:
        """Of those that are ready; of all, when none is."""
        return min(self.upstreams, key=lambda upstream: (not upstream.is_ready, upstream.in_flight))


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of it, even when some fails; then raises what the first raised."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
