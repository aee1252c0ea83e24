"""The engine's HTTP side: who may ask, which adapters there are, how it fares. Loopback or a Unix socket only.

What is asked is answered in `answers`. Every error is in OpenAI's shape.
"""

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from tunesmith.engine.answers import Answers, Served
from tunesmith.engine.events import read_json_body
from tunesmith.engine.identity import Loaded
from tunesmith.engine.metrics import Meter
from tunesmith.engine.responses import error_body
from tunesmith.errors import InvalidRequest, NotFound, Overloaded, TunesmithError, Unauthorized
from tunesmith.models.artifact import AdapterInfo, read_adapter

MAX_BODY_BYTES = 64 * 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Routes and the adapters' names. Lives on the event loop."""

    def __init__(self, served: Served):
        self._served = served
        self._adapters: dict[str, Loaded] = {}
        self._loading = asyncio.Lock()
        self._is_draining = False
        self._answers = Answers(served, self._adapter)
        self._meter = Meter(served.base.id, served.core.stats, lambda: len(self._adapters))
        served.core.on_finish = self._meter.observe

    async def drain(self) -> None:
        """Refuses what is new, and returns when the last sequence has ended."""
        self._is_draining = True
        await asyncio.wrap_future(self._served.core.drain())

    def stop(self) -> None:
        self._served.core.stop()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._boundary], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/threads", self.set_threads)
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_routes(self._answers.routes())
        app.router.add_post("/adapters", self.add_adapter)
        app.router.add_delete("/adapters/{name:.+}", self.drop_adapter)
        return app

    @web.middleware
    async def _boundary(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors become OpenAI's bodies here, and nowhere else."""
        try:
            self._check_key(request)
            return await handler(request)
        except TunesmithError as error:
            headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Overloaded) else None
            return web.json_response(error_body(error), status=error.status, headers=headers)
        except web.HTTPException as error:
            known = TunesmithError(f"{request.method} {request.path}: {error.reason}.", code=f"http_{error.status}")
            known.status = error.status
            return web.json_response(error_body(known), status=error.status)

    def _check_key(self, request: web.Request) -> None:
        if self._served.key and request.path != "/health":
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._served.key.encode()):
                raise Unauthorized("The engine's key is missing or wrong.", hint="Ask the desk, not the engine.")

    # -- models and adapters --------------------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        """200 when it takes work; 503 while it drains."""
        served, stats = self._served, self._served.core.stats()
        body = {
            "status": "draining" if self._is_draining else "ok",
            "base": served.base.id,
            "quantization": served.quantization,
            "mode": served.mode,
            "adapters": sorted(self._adapters),
            "running": stats.running,
            "waiting": stats.waiting,
            "generated_tokens": stats.generated_tokens,
        }
        return web.json_response(body, status=503 if self._is_draining else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._meter.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def set_threads(self, request: web.Request) -> web.Response:
        """{"threads": n}: from the next step on. For a training run that begins or ends beside the engine."""
        threads = (await read_json_body(request)).get("threads")
        most = len(os.sched_getaffinity(0))
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= most:
            raise InvalidRequest(f"threads is not a number from 1 to {most}.", param="threads", code="invalid_value")
        self._served.core.set_threads(threads)
        return web.json_response({"threads": threads})

    async def list_models(self, request: web.Request) -> web.Response:
        names = [self._served.base.id, *sorted(self._adapters)]
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "tunesmith"} for name in names]
        return web.json_response({"object": "list", "data": models})

    async def add_adapter(self, request: web.Request) -> web.Response:
        """{"name", "path", "content_hash"}: loads an adapter. The same again is no error; another content needs another name."""
        body = await read_json_body(request)
        name, path = _text(body, "name"), _text(body, "path")
        info = await asyncio.to_thread(read_adapter, Path(path))
        if info.content_hash != body.get("content_hash", info.content_hash):
            message = f"The adapter in {path} is not the one that was published."
            raise InvalidRequest(message, hint="Its content hash differs.", param="content_hash")
        # Shielded: an adapter whose client has gone is loaded and named all the same, and can be dropped.
        await asyncio.shield(asyncio.ensure_future(self._load(name, info)))
        return web.json_response({"name": name, "content_hash": info.content_hash})

    async def _load(self, name: str, info: AdapterInfo) -> None:
        async with self._loading:
            loaded = self._adapters.get(name)
            if name == self._served.base.id or (loaded is not None and loaded.content_hash != info.content_hash):
                raise InvalidRequest(f"The name {name!r} is taken.", hint="Drop it first, or use another.", param="name")
            if loaded is None:
                serial = await asyncio.wrap_future(self._served.core.add_adapter(info))
                self._adapters[name] = Loaded(serial, info.content_hash, info.num_virtual, info.kind == "reward")

    async def drop_adapter(self, request: web.Request) -> web.Response:
        """What runs on the adapter ends in peace; new requests for it are refused at once."""
        name = request.match_info["name"]
        loaded = self._adapters.pop(name, None)
        if loaded is None:
            raise _no_model(name)
        self._served.core.drop_adapter(loaded.serial)
        return web.json_response({"name": name, "deleted": True})

    def _adapter(self, model: str) -> Loaded | None:
        """The adapter named `model`; None for the base. Raises NotFound."""
        if model == self._served.base.id:
            return None
        if model not in self._adapters:
            raise _no_model(model)
        return self._adapters[model]


def _text(body: Any, name: str) -> str:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} is missing.", hint="Send it as text.", param=name, code="missing_required_parameter")
    return value


def _no_model(name: str) -> NotFound:
    return NotFound(f"The model {name[:200]!r} does not exist.", hint="See /v1/models.", param="model", code="model_not_found")
