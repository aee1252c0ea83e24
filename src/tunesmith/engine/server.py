"""The engine's HTTP side: checks requests, makes sequences, streams what the core's thread gives. Loopback or a Unix socket only.

A client that goes away aborts its sequences. Every error is in OpenAI's shape.
"""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Sequence as Many
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web

from tunesmith.data.chat_template import prompt_ids, text_ids
from tunesmith.engine.core import Core
from tunesmith.engine.requests import ChatRequest, CompletionRequest, R, parse
from tunesmith.engine.responses import (
    ChatStream,
    Collected,
    CompletionStream,
    Json,
    Prompt,
    chat_answer,
    completion_answer,
    error_body,
    head,
    usage,
)
from tunesmith.engine.sequence import Output, Sampling, Sequence
from tunesmith.engine.text import TextStream
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.errors import InvalidData, InvalidRequest, NotFound, TunesmithError, Unauthorized
from tunesmith.models.artifact import read_adapter
from tunesmith.models.catalog import Base

MAX_BODY_BYTES = 64 * 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Indexed = tuple[int, Output]


@dataclass(frozen=True)
class Served:
    """What the server answers for."""

    base: Base
    quantization: str
    vocabulary: Vocabulary
    core: Core
    end_tokens: frozenset[int]
    key: str
    """Requests must bear it; empty lets everyone in."""


@dataclass(frozen=True)
class Loaded:
    serial: int
    content_hash: str


class Server:
    """Routes and the adapters' names. Lives on the event loop."""

    def __init__(self, served: Served):
        self._served = served
        self._adapters: dict[str, Loaded] = {}
        self._ids = count(1)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._boundary], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.complete)
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
            return web.json_response(error_body(error), status=error.status)
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
        load = self._served.core.load()
        return web.json_response({
            "status": "ok",
            "base": self._served.base.id,
            "quantization": self._served.quantization,
            "adapters": sorted(self._adapters),
            "running": load.running,
            "waiting": load.waiting,
            "generated_tokens": load.generated_tokens,
        })

    async def list_models(self, request: web.Request) -> web.Response:
        names = [self._served.base.id, *sorted(self._adapters)]
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "tunesmith"} for name in names]
        return web.json_response({"object": "list", "data": models})

    async def add_adapter(self, request: web.Request) -> web.Response:
        """{"name", "path", "content_hash"}: loads an adapter. The same again is no error; another content needs another name."""
        body = await _json(request)
        name, path = _text(body, "name"), _text(body, "path")
        info = await asyncio.to_thread(read_adapter, Path(path))
        if info.content_hash != body.get("content_hash", info.content_hash):
            message = f"The adapter in {path} is not the one that was published."
            raise InvalidRequest(message, hint="Its content hash differs.", param="content_hash")
        loaded = self._adapters.get(name)
        if name == self._served.base.id or (loaded is not None and loaded.content_hash != info.content_hash):
            raise InvalidRequest(f"The name {name!r} is taken.", hint="Drop it first, or use another.", param="name")
        if loaded is None:
            serial = await asyncio.wrap_future(self._served.core.add_adapter(info))
            self._adapters[name] = Loaded(serial, info.content_hash)
        return web.json_response({"name": name, "content_hash": info.content_hash})

    async def drop_adapter(self, request: web.Request) -> web.Response:
        """What runs on the adapter ends in peace; new requests for it are refused at once."""
        name = request.match_info["name"]
        loaded = self._adapters.pop(name, None)
        if loaded is None:
            raise _no_model(name)
        self._served.core.drop_adapter(loaded.serial)
        return web.json_response({"name": name, "deleted": True})

    def _adapter(self, model: str) -> int | None:
        """Serial number of the adapter named `model`; None for the base. Raises NotFound."""
        if model == self._served.base.id:
            return None
        if model not in self._adapters:
            raise _no_model(model)
        return self._adapters[model].serial

    # -- completions ----------------------------------------------------------------------------------------------------

    async def chat(self, http: web.Request) -> web.StreamResponse:
        request = await self._parse(http, ChatRequest)
        adapter, vocabulary = self._adapter(request.model), self._served.vocabulary
        try:
            prompt = prompt_ids(vocabulary.tokenizer, request.messages, request.used_tools or None)
        except InvalidData as error:
            raise InvalidRequest(error.message, hint=error.hint, param="messages", code="invalid_value") from error
        wanted = [(prompt, request.sampling(len(prompt), self._served.base.max_positions, n)) for n in range(request.n)]
        async with self._running(wanted, adapter, is_streamed=request.stream) as outputs:
            if not request.stream:
                choices = await _collect(outputs, request.n)
                return web.json_response(chat_answer(request, vocabulary, prompt, choices))
            first = head("chat.completion.chunk", "chatcmpl", request.model)
            streams = [ChatStream(request, vocabulary, first, index) for index in range(request.n)]
            events = _Events(first, request.stream_options.include_usage, len(prompt))
            return await events.send(http, outputs, [s.chunks for s in streams], [s.begin() for s in streams])

    async def complete(self, http: web.Request) -> web.StreamResponse:
        request = await self._parse(http, CompletionRequest)
        adapter, vocabulary = self._adapter(request.model), self._served.vocabulary
        prompts = [self._prompt(prompt) for prompt in request.prompts]
        limit = self._served.base.max_positions
        asked = [(p, p.tokens, request.sampling(len(p.tokens), limit, n)) for p in prompts for n in range(request.n)]
        wanted = [(tokens, sampling) for _, tokens, sampling in asked]
        async with self._running(wanted, adapter, is_streamed=request.stream) as outputs:
            if not request.stream:
                choices = await _collect(outputs, len(asked))
                paired = [(prompt, choice) for (prompt, _, _), choice in zip(asked, choices, strict=True)]
                return web.json_response(completion_answer(request, vocabulary, prompts, paired))
            first = head("text_completion", "cmpl", request.model)
            streams = [CompletionStream(request, vocabulary, first, index) for index in range(len(asked))]
            num_prompt_tokens = sum(len(prompt.tokens) for prompt in prompts)
            events = _Events(first, request.stream_options.include_usage, num_prompt_tokens)
            return await events.send(http, outputs, [stream.chunks for stream in streams], [])

    async def _parse(self, http: web.Request, kind: type[R]) -> R:
        return parse(kind, await _json(http))

    def _prompt(self, prompt: str | list[int]) -> Prompt:
        vocabulary = self._served.vocabulary
        if isinstance(prompt, str):
            tokens, text = text_ids(vocabulary.tokenizer, prompt), prompt
        else:
            tokens = prompt
            if any(not 0 <= token < len(vocabulary) for token in tokens):
                message = f"The prompt holds a token beyond the vocabulary of {len(vocabulary)}."
                raise InvalidRequest(message, param="prompt", code="invalid_value")
            text = vocabulary.decode(tokens)
        if not tokens:
            raise InvalidRequest("The prompt is empty.", hint="Send at least one token.", param="prompt", code="invalid_value")
        return Prompt(text, tokens)

    @asynccontextmanager
    async def _running(
        self, wanted: list[tuple[list[int], Sampling]], adapter: int | None, *, is_streamed: bool
    ) -> AsyncIterator[asyncio.Queue[Indexed]]:
        """Starts a sequence for each prompt; their outputs come, with the sequence's index. Aborts what still runs at the end."""
        loop, outputs = asyncio.get_running_loop(), asyncio.Queue[Indexed]()

        def sink(index: int, output: Output) -> None:
            loop.call_soon_threadsafe(outputs.put_nowait, (index, output))

        sequences = [
            Sequence(
                id=next(self._ids),
                tokens=list(tokens),
                sampling=sampling,
                sink=partial(sink, index),
                text=TextStream(self._served.vocabulary.decode, sampling.stop),
                end_tokens=self._served.end_tokens,
                max_positions=self._served.base.max_positions,
                adapter=adapter,
                is_streamed=is_streamed,
            )
            for index, (tokens, sampling) in enumerate(wanted)
        ]
        for sequence in sequences:
            self._served.core.add(sequence)
        try:
            yield outputs
        finally:
            for sequence in sequences:
                if not sequence.is_finished:
                    self._served.core.abort(sequence)


class _Events:
    """Server-sent events of one answer."""

    def __init__(self, first: Json, include_usage: bool, num_prompt_tokens: int):
        self._head = first
        self._include_usage = include_usage
        self._num_prompt_tokens = num_prompt_tokens

    async def send(
        self,
        http: web.Request,
        outputs: asyncio.Queue[Indexed],
        streams: Many[Callable[[Output], list[Json]]],
        opening: list[Json],
    ) -> web.StreamResponse:
        """Streams until every choice has finished. An error before the first output is an HTTP error, a later one an event."""
        index, output = await outputs.get()
        if output.error is not None:
            raise output.error
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(http)
        num_left, num_tokens = len(streams), 0
        chunks = opening
        while True:
            if output.error is not None:
                await response.write(_event(error_body(output.error)))
                return response
            num_tokens += len(output.tokens)
            num_left -= output.finish_reason is not None
            for chunk in [*chunks, *streams[index](output)]:
                await response.write(_event(chunk | ({"usage": None} if self._include_usage else {})))
            if not num_left:
                break
            chunks = []
            index, output = await outputs.get()
        if self._include_usage:
            await response.write(_event(self._head | {"choices": [], "usage": usage(self._num_prompt_tokens, num_tokens)}))
        await response.write(b"data: [DONE]\n\n")
        return response


def _event(chunk: Json) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _collect(outputs: asyncio.Queue[Indexed], num_choices: int) -> list[Collected]:
    """All choices, when all have finished. Raises the first error."""
    choices = [Collected() for _ in range(num_choices)]
    num_left = num_choices
    while num_left:
        index, output = await outputs.get()
        if output.error is not None:
            raise output.error
        choices[index].add(output)
        num_left -= output.finish_reason is not None
    return choices


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", hint="Send a JSON object.") from error


def _text(body: Any, name: str) -> str:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} is missing.", hint="Send it as text.", param=name, code="missing_required_parameter")
    return value


def _no_model(name: str) -> NotFound:
    return NotFound(f"The model {name[:200]!r} does not exist.", hint="See /v1/models.", param="model", code="model_not_found")
