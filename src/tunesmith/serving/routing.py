"""Which upstream answers for which model: the engines of each base at each precision, started when they are first asked.

Knows nothing of HTTP routes or SQL; `to_target` is the one place where a fine-tuned model becomes a target.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from tunesmith.db.models import FineTuned
from tunesmith.errors import Busy, TunesmithError
from tunesmith.models.whole import is_whole
from tunesmith.serving.answer import Answer
from tunesmith.serving.build import build
from tunesmith.serving.memory import Memory, free_bytes, num_cores
from tunesmith.serving.orders import threads_of
from tunesmith.serving.processes import EngineProcess
from tunesmith.serving.replicas import Replicas
from tunesmith.serving.upstream import Adapter, State
from tunesmith.settings import Settings
from tunesmith.types import Quantization

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
ELSEWHERE: tuple[str, Quantization] = ("", "none")
"""Key of the one upstream that runs elsewhere and has its own models."""

Key = tuple[str, Quantization]

log = structlog.get_logger("tunesmith.serving")


@dataclass(frozen=True)
class Target:
    """What a request's `model` means: a base, or an adapter on it, served on the precision that it was trained on.

    A model all of whose weights were trained is a base by itself, named by its folder: its own engine serves it.
    """

    model_id: str
    base: str
    quantization: Quantization = "none"
    adapter: Adapter | None = None
    is_whole: bool = False


def to_target(model: FineTuned, data_dir: Path) -> Target:
    if is_whole(data_dir / model.path):
        return whole_target(model.id, data_dir / model.path)
    adapter = Adapter(data_dir / model.path, model.content_hash, model.quantization)
    return Target(model.id, model.base, model.quantization, adapter)


def whole_target(model_id: str, folder: Path) -> Target:
    """`folder` is absolute, so that it is a base's name."""
    return Target(model_id, str(folder), is_whole=True)


def base_target(base: str, quantization: Quantization = "none") -> Target:
    return Target(base, base, quantization)


@dataclass(frozen=True)
class EngineState:
    """One engine, as /health shows it."""

    base: str
    quantization: Quantization
    replica: int
    state: State


class Router:
    """All upstreams of one desk. Used from one event loop."""

    def __init__(
        self, settings: Settings, started: EngineProcess | None = None, free: Callable[[], int] = free_bytes
    ):
        """`started` is the default base's engine, if it was started already."""
        self._settings = settings
        self._started: dict[Key, EngineProcess | None] = {(settings.bases[0], "none"): started}
        self._memory = Memory(free)
        self._upstreams: dict[Key, Replicas] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_training = False
        self._is_draining = False

    async def chat(self, target: Target, body: dict[str, Any]) -> Answer:
        """Answers a chat request; `body["stream"]` decides whether the answer is events. The caller reads or closes it.

        Raises EngineFailed when no engine can answer, Busy, or InvalidRequest when the adapter was altered.
        """
        return await self.ask(target, CHAT, body)

    async def complete(self, target: Target, body: dict[str, Any]) -> Answer:
        """Like `chat`, for /v1/completions."""
        return await self.ask(target, COMPLETIONS, body)

    async def ask(self, target: Target, path: str, body: dict[str, Any]) -> Answer:
        return await self._replicas(target).ask(path, body | {"model": target.model_id}, target.adapter)

    async def ready(self, target: Target) -> Replicas:
        """The target's upstream, one of its engines running, with the adapter loaded."""
        replicas = self._replicas(target)
        await replicas.start_one()
        if target.adapter is not None:
            await replicas.ensure_adapter(target.adapter)
        return replicas

    def add(self, base: str) -> None:
        """Starts a base's engines in the background. Raises Busy with the figures when they do not fit, and NotFound."""
        replicas = self._replicas(base_target(base))
        self._memory.check(f"The engine for {base}", sum(upstream.need_bytes for upstream in replicas.upstreams))
        self.warm(base)

    def warm(self, base: str) -> None:
        """Starts a base's engines in the background; what goes wrong is logged, and told to who asks."""
        self._later(self._warm(base))

    async def _warm(self, base: str) -> None:
        try:
            await self._replicas(base_target(base)).start()
        except TunesmithError as error:
            log.warning("an engine could not be started", base=base, why=str(error))

    async def drop(self, target: Target) -> None:
        """Forgets a model's adapter where it is loaded, or stops the engines of a whole model; starts nothing."""
        if target.is_whole:
            return await self.remove(target.base)
        upstream = self._upstreams.get(self._key(target))
        if upstream is not None and target.adapter is not None:
            await upstream.drop_adapter(target.adapter)

    async def remove(self, base: str) -> None:
        """Lets the answers of a base's engines end, then stops them; a base without engines is no error."""
        keys = [key for key in self._upstreams if key[0] == base]
        gone = [self._upstreams.pop(key) for key in keys]
        await asyncio.gather(*(upstream.drain(self._settings.drain_seconds) for upstream in gone))
        await asyncio.gather(*(upstream.stop() for upstream in gone))

    async def remote_models(self) -> list[str]:
        """Those of the server elsewhere; none when engines run here."""
        if self._settings.engine != "openai":
            return []
        (upstream,) = self._replicas(base_target("")).upstreams
        await upstream.start()
        return await upstream.models()

    def training(self, is_training: bool) -> None:
        """A training begins or has ended beside the engines: they take fewer threads meanwhile, as engines started later do."""
        if is_training == self._is_training or self._is_draining:
            return
        self._is_training = is_training
        self._later(self._share_threads())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _share_threads(self) -> None:
        await asyncio.gather(*(upstream.set_threads(self._num_threads()) for upstream in self._upstreams.values()))

    def _num_threads(self) -> int:
        return threads_of(self._settings, num_cores(), is_training=self._is_training)

    async def states(self) -> list[EngineState]:
        """Of every engine that was ever asked."""
        found = []
        for (base, quantization), replicas in list(self._upstreams.items()):
            states = await replicas.states()
            found += [EngineState(base, quantization, number, state) for number, state in enumerate(states)]
        return found

    async def metrics(self) -> dict[tuple[str, Quantization, int], str]:
        """(base, precision, replica) -> the metrics of each engine that is ready, as it tells them."""
        return {
            (base, quantization, number): await upstream.metrics()
            for (base, quantization), replicas in list(self._upstreams.items())
            for number, upstream in enumerate(replicas.upstreams)
            if upstream.is_ready
        }

    async def drain(self) -> None:
        """Routes no new work, and waits for what was begun, `settings.drain_seconds` at most."""
        self._is_draining = True
        await asyncio.gather(*(upstream.drain(self._settings.drain_seconds) for upstream in self._upstreams.values()))

    async def stop(self) -> None:
        self._is_draining = True
        upstreams, self._upstreams = self._upstreams, {}
        await asyncio.gather(*(upstream.stop() for upstream in upstreams.values()))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _replicas(self, target: Target) -> Replicas:
        if self._is_draining:
            raise Busy("The server is stopping.", hint="Ask again in a moment.", code="engine_draining")
        key = self._key(target)
        if key not in self._upstreams:
            made = self._upstreams[key] = build(self._settings, *key, self._memory, self._started.pop(key, None))
            if self._is_training:
                self._later(made.set_threads(self._num_threads()))
        return self._upstreams[key]

    def _key(self, target: Target) -> Key:
        """vLLM has one precision per base: adapters of another are refused by it, or served on it all the same by a setting."""
        if self._settings.engine == "openai":
            return ELSEWHERE
        return (target.base, target.quantization if self._settings.engine == "embedded" else "none")
