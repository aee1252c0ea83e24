"""Answers to /v1/chat/completions and /v1/completions: a checked request becomes sequences, their outputs an answer or events.

A client that goes away aborts its sequences. Knows no adapters' files and no keys.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Many
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
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
from tunesmith.errors import InvalidData, InvalidRequest
from tunesmith.models.catalog import Base

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
    """An adapter that the engine holds."""

    serial: int
    content_hash: str


FindAdapter = Callable[[str], Loaded | None]
"""The adapter that a request's `model` names; None for the base. Raises NotFound."""


class Answers:
    """The two endpoints. Lives on the event loop."""

    def __init__(self, served: Served, find_adapter: FindAdapter):
        self._served = served
        self._find_adapter = find_adapter
        self._ids = count(1)

    async def chat(self, http: web.Request) -> web.StreamResponse:
        request = await self._parse(http, ChatRequest)
        adapter, vocabulary = self._find_adapter(request.model), self._served.vocabulary
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
        adapter, vocabulary = self._find_adapter(request.model), self._served.vocabulary
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
        return parse(kind, await read_json_body(http))

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
        self, wanted: list[tuple[list[int], Sampling]], adapter: Loaded | None, *, is_streamed: bool
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
                adapter=adapter.serial if adapter is not None else None,
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


async def read_json_body(request: web.Request) -> Any:
    """The request's body as a JSON value. Raises InvalidRequest."""
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", hint="Send a JSON object.") from error
