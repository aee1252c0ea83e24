"""Which upstream answers for which model: one engine for each base at each precision, started when it is first asked.

Knows nothing of HTTP routes or SQL; `to_target` is the one place where a fine-tuned model becomes a target.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.db.models import FineTuned
from tunesmith.serving.embedded import Embedded, Progress
from tunesmith.serving.processes import EngineOrder
from tunesmith.serving.upstream import Answer, State, Upstream
from tunesmith.settings import Settings
from tunesmith.types import Quantization

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

Key = tuple[str, Quantization]


@dataclass(frozen=True)
class Adapter:
    """A fine-tuned model's adapter: its folder, and the hash of what must lie there."""

    path: Path
    content_hash: str


@dataclass(frozen=True)
class Target:
    """What a request's `model` means: a base, or an adapter on it, served on the precision that it was trained on."""

    model_id: str
    base: str
    quantization: Quantization = "none"
    adapter: Adapter | None = None


def to_target(model: FineTuned, data_dir: Path) -> Target:
    return Target(model.id, model.base, model.quantization, Adapter(data_dir / model.path, model.content_hash))


def base_target(base: str, quantization: Quantization = "none") -> Target:
    return Target(base, base, quantization)


class Router:
    """All upstreams of one desk. Used from one event loop."""

    def __init__(self, settings: Settings, progress: Progress = lambda base, seconds: None):
        self._settings = settings
        self._progress = progress
        self._upstreams: dict[Key, Upstream] = {}

    async def chat(self, target: Target, body: dict[str, Any]) -> Answer:
        """Answers a chat request; `body["stream"]` decides whether the answer is events. The caller reads or closes it.

        Raises EngineFailed when no engine can answer, InvalidRequest when the adapter was altered.
        """
        return await self.ask(target, CHAT, body)

    async def complete(self, target: Target, body: dict[str, Any]) -> Answer:
        """Like `chat`, for /v1/completions."""
        return await self.ask(target, COMPLETIONS, body)

    async def ask(self, target: Target, path: str, body: dict[str, Any]) -> Answer:
        upstream = await self.ready(target)
        return await upstream.ask(path, body | {"model": target.model_id})

    async def ready(self, target: Target) -> Upstream:
        """The target's upstream, running, with its adapter loaded."""
        upstream = self._upstream((target.base, target.quantization))
        await upstream.start()
        if target.adapter is not None:
            await upstream.ensure_adapter(target.model_id, target.adapter.path, target.adapter.content_hash)
        return upstream

    async def drop(self, base: str, quantization: Quantization, model_id: str) -> None:
        """Forgets a model's adapter where it is loaded; starts nothing."""
        upstream = self._upstreams.get((base, quantization))
        if upstream is not None and await upstream.health() == "ready":
            await upstream.drop_adapter(model_id)

    async def states(self) -> dict[str, State]:
        """`base@precision` -> state, of every upstream that was ever asked."""
        return {f"{base}@{precision}": await up.health() for (base, precision), up in self._upstreams.items()}

    async def stop(self) -> None:
        upstreams, self._upstreams = self._upstreams, {}
        await asyncio.gather(*(upstream.stop() for upstream in upstreams.values()))

    def _upstream(self, key: Key) -> Upstream:
        if key not in self._upstreams:
            dirs = self._settings.dirs
            log = dirs.logs / f"engine-{key[0].replace('/', '--').lstrip('.-')}-{key[1]}.log"
            order = EngineOrder(key[0], key[1], dirs.models, self._settings.threads, log)
            self._upstreams[key] = Embedded(order, self._progress)
        return self._upstreams[key]
