"""Answers to what is asked of the model: a checked request becomes sequences, their outputs an answer or events.

A client that goes away aborts its sequences. Knows no adapters' files and no keys.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import NamedTuple

from aiohttp import web

from tunesmith.engine.completions import CompletionStream, completion_answer
from tunesmith.engine.constraints import Form, Forms
from tunesmith.engine.core import Core
from tunesmith.engine.embeddings import embedding_answer
from tunesmith.engine.events import Events, Indexed, collect, read_json_body
from tunesmith.engine.identity import FindAdapter, Loaded, cache_root, fingerprint
from tunesmith.engine.parsing import parse
from tunesmith.engine.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Order, Request, each_prompt
from tunesmith.engine.responses import ChatStream, Tally, chat_answer, head
from tunesmith.engine.scores import ScoreRequest, score_answer
from tunesmith.engine.sequence import VIRTUAL, Output, Sampling, Sequence
from tunesmith.engine.text import Decode, TextStream
from tunesmith.engine.texts import Texts, chat_prompt, read_prompt, whole_ids
from tunesmith.engine.tool_forms import ToolDialect
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.errors import ContextTooLong, InvalidRequest
from tunesmith.models.catalog import Base


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
    mode: str = "module"
    """How the base is computed: lean, module, or single (one request at a time)."""


class Wanted(NamedTuple):
    """One completion to be made."""

    prompt: list[int]
    sampling: Sampling
    form: Form | None = None


class Answers:
    """The endpoints that compute. Lives on the event loop."""

    def __init__(self, served: Served, find_adapter: FindAdapter):
        self._served = served
        self._find_adapter = find_adapter
        self._ids = count(1)
        self._revision = served.base.revision
        self._forms = Forms(served.vocabulary.tokenizer, served.end_tokens)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/completions", self.complete),
            web.post("/v1/embeddings", self.embed),
            web.post("/v1/score", self.score),
            *Texts(self._served.vocabulary, self._served.base.max_positions, self._find_adapter).routes(),
        ]

    async def chat(self, http: web.Request) -> web.StreamResponse:
        request = parse(ChatRequest, await read_json_body(http))
        adapter, vocabulary = self._answering(request.model), self._served.vocabulary
        prompt = chat_prompt(vocabulary, request.messages, request.used_tools)
        samplings = [request.sampling(len(prompt), self._num_positions(adapter), number) for number in range(request.n)]
        forms = await self._make_forms(request, request.n)
        wanted = [Wanted(prompt, sampling, form) for sampling, form in zip(samplings, forms, strict=True)]
        decode = vocabulary.decode_keeping(vocabulary.dialect.kept) if request.used_tools else vocabulary.decode
        fingerprint = self._fingerprint(adapter)
        async with self._running(request, wanted, adapter, decode=decode) as outputs:
            if not request.stream:
                choices = await collect(outputs, request.n)
                return web.json_response(chat_answer(request, vocabulary, fingerprint, prompt, choices))
            first = head("chat.completion.chunk", "chatcmpl", request.model, fingerprint)
            streams = [ChatStream(request, vocabulary, first, index) for index in range(request.n)]
            events = Events(first, request.stream_options.include_usage, Tally([prompt], request.n))
            return await events.send(http, outputs, [s.chunks for s in streams], [s.begin() for s in streams])

    async def complete(self, http: web.Request) -> web.StreamResponse:
        request = parse(CompletionRequest, await read_json_body(http))
        adapter, vocabulary = self._answering(request.model), self._served.vocabulary
        prompts = [read_prompt(vocabulary, prompt, "prompt") for prompt in request.prompts]
        limit = self._num_positions(adapter)
        asked = [(p.tokens, request.sampling(len(p.tokens), limit, number)) for p in prompts for number in range(request.n)]
        forms = await self._make_forms(request, len(asked))
        wanted = [Wanted(tokens, sampling, form) for (tokens, sampling), form in zip(asked, forms, strict=True)]
        fingerprint = self._fingerprint(adapter)
        async with self._running(request, wanted, adapter, decode=vocabulary.decode) as outputs:
            if not request.stream:
                choices = await collect(outputs, len(wanted))
                return web.json_response(completion_answer(request, vocabulary, fingerprint, prompts, choices))
            first = head("text_completion", "cmpl", request.model, fingerprint)
            streams = [CompletionStream(request, vocabulary, first, index) for index in range(len(wanted))]
            tally = Tally([prompt.tokens for prompt in prompts], request.n)
            events = Events(first, request.stream_options.include_usage, tally)
            return await events.send(http, outputs, [stream.chunks for stream in streams], [])

    async def embed(self, http: web.Request) -> web.StreamResponse:
        request = parse(EmbeddingRequest, await read_json_body(http))
        adapter = self._answering(request.model)
        prompts = [read_prompt(self._served.vocabulary, prompt, "input").tokens for prompt in each_prompt(request.input)]
        longest, limit = max(map(len, prompts), default=0), self._num_positions(adapter)
        if longest > limit:
            message = f"This model has {limit} positions; an input has {longest} tokens."
            raise ContextTooLong(message, hint="Shorten it.", param="input")
        wanted = [Wanted(prompt, Sampling(max_tokens=0)) for prompt in prompts]
        async with self._running(request, wanted, adapter, decode=self._served.vocabulary.decode) as outputs:
            return web.json_response(embedding_answer(request, prompts, await collect(outputs, len(wanted))))

    async def score(self, http: web.Request) -> web.StreamResponse:
        """One number for a conversation, by a reward model."""
        request = parse(ScoreRequest, await read_json_body(http))
        adapter, vocabulary = self._find_adapter(request.model), self._served.vocabulary
        if adapter is None or not adapter.is_reward:
            message = f"{request.model} is no reward model: it gives answers, and no scores."
            raise InvalidRequest(message, hint="Train one with the method reward.", param="model", code="not_a_reward_model")
        if request.messages is not None:
            prompt = whole_ids(vocabulary, request.messages, request.tools)
        else:
            prompt = read_prompt(vocabulary, request.prompt or [], "prompt").tokens
        if len(prompt) > self._served.base.max_positions:
            message = f"This model has {self._served.base.max_positions} positions; the conversation has {len(prompt)} tokens."
            raise ContextTooLong(message, hint="Shorten it.", param="messages")
        wanted = [Wanted(prompt, Sampling(max_tokens=0))]
        async with self._running(request, wanted, adapter, decode=vocabulary.decode) as outputs:
            return web.json_response(score_answer(request, prompt, (await collect(outputs, 1))[0]))

    # -- one request's parts --------------------------------------------------------------------------------------------

    def _answering(self, model: str) -> Loaded | None:
        """The adapter that shall answer. Raises NotFound, and InvalidRequest for one that cannot."""
        adapter = self._find_adapter(model)
        if adapter is not None and adapter.is_reward:
            message = f"{model} is a reward model: it gives scores, and no answers."
            raise InvalidRequest(message, hint="Ask an adapter that was trained to answer.", param="model", code="reward_model")
        return adapter

    def _num_positions(self, adapter: Loaded | None) -> int:
        """Those that prompt and completion can have: a soft prompt takes some."""
        return self._served.base.max_positions - (adapter.num_virtual if adapter is not None else 0)

    def _fingerprint(self, adapter: Loaded | None) -> str:
        return fingerprint(self._revision, self._served.quantization, adapter.content_hash if adapter is not None else None)

    async def _make_forms(self, request: Request, number: int) -> list[Form] | list[None]:
        """What each of the choices must look like. Raises InvalidRequest; also for a bias that names no token."""
        num_tokens = len(self._served.vocabulary)
        if any(token >= num_tokens for token in request.logit_bias):
            message = f"logit_bias names a token beyond the vocabulary of {num_tokens}."
            raise InvalidRequest(message, hint="See /tokenize.", param="logit_bias", code="invalid_value")
        asked = request.form
        if isinstance(request, ChatRequest) and request.used_tools:
            grammar = tool_grammar(self._served.vocabulary.dialect, request)
            asked = None if grammar is None else (grammar, "tools")
        return [None] * number if asked is None else await self._forms.make(asked[0], number, asked[1])

    @asynccontextmanager
    async def _running(
        self, request: Order, wanted: list[Wanted], adapter: Loaded | None, *, decode: Decode
    ) -> AsyncIterator[asyncio.Queue[Indexed]]:
        """Starts the sequences; their outputs come, with the sequence's index. Aborts what still runs at the end."""
        loop, outputs = asyncio.get_running_loop(), asyncio.Queue[Indexed]()

        def sink(index: int, output: Output) -> None:
            loop.call_soon_threadsafe(outputs.put_nowait, (index, output))

        num_virtual = adapter.num_virtual if adapter is not None else 0
        root = cache_root(self._revision, adapter.content_hash if adapter is not None else None, request.cache_salt)
        deadline = None if request.deadline_seconds is None else time.monotonic() + request.deadline_seconds
        ignores_end = isinstance(request, Request) and request.ignore_eos
        sequences = [
            Sequence(
                id=next(self._ids),
                tokens=[VIRTUAL] * num_virtual + prompt,
                sampling=sampling,
                sink=partial(sink, index),
                text=TextStream(decode, sampling.stop),
                end_tokens=frozenset() if ignores_end else self._served.end_tokens,
                max_positions=self._served.base.max_positions,
                adapter=adapter.serial if adapter is not None else None,
                is_streamed=isinstance(request, Request) and request.stream,
                cache_root=root,
                num_virtual=num_virtual,
                priority=request.priority,
                deadline=deadline,
                constraint=form,
                wants_embedding=isinstance(request, EmbeddingRequest | ScoreRequest),
            )
            for index, (prompt, sampling, form) in enumerate(wanted)
        ]
        for sequence in sequences:
            self._served.core.add(sequence)
        try:
            yield outputs
        finally:
            for sequence in sequences:
                if not sequence.is_finished:
                    self._served.core.abort(sequence)


def tool_grammar(dialect: ToolDialect, request: ChatRequest) -> str | None:
    """What an answer with tools must look like: forced calls, or a call or the format that was asked for; None is free."""
    if request.forced_tools:
        return dialect.grammar(request.forced_tools, request.parallel_tool_calls and request.tool_choice == "required")
    schema = request.response_format.schema_asked
    return None if schema is None else dialect.grammar(request.used_tools, request.parallel_tool_calls, schema)
