"""What engines answer: chats, completions, tokens. Finds what `model` means, and passes the question on and the answer back.

A field that cannot be honoured is refused by the tables of `schemas/chat.py`, its value by the engine, in OpenAI's words. When
the client leaves, the engine's work ends, also before the first token.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.resolve import target_of
from tunesmith.api.streams import Stream, data_of, each_event, json_body, to_event, unless_gone
from tunesmith.completer import PRIORITY_HEADER
from tunesmith.db import stored
from tunesmith.db.keys import Key
from tunesmith.schemas import chat as wire
from tunesmith.serving.answer import Answer
from tunesmith.serving.routing import CHAT, COMPLETIONS, EMBEDDINGS, Target
from tunesmith.types import unix_now

router = APIRouter()

SALTED = {"embedded": (CHAT, COMPLETIONS, EMBEDDINGS), "vllm": (CHAT, COMPLETIONS), "openai": ()}
"""Engine -> the paths on which it knows `cache_salt`."""


@router.post(CHAT, dependencies=[needs("model.request")])
async def chat(request: Request, desk: DeskDep, key: KeyDep) -> Response:
    body = await json_body(request)
    engine = desk.settings.engine
    wire.check_chat(body, engine)
    question = with_priority(request, desk, wire.to_engine(body, wire.CHAT, engine))
    target = await target_of(desk, body.get("model"), key.project)
    changes = Changes(desk, key, body)
    answer = await unless_gone(request, ask_engine(desk, key, target, CHAT, changes.asked(question)))
    return await reply(request, answer, changes)


@router.post(COMPLETIONS, dependencies=[needs("model.request")])
async def complete(request: Request, desk: DeskDep, key: KeyDep) -> Response:
    body = await json_body(request)
    engine = desk.settings.engine
    wire.check_completions(body, engine)
    question = with_priority(request, desk, wire.to_engine(body, wire.COMPLETIONS, engine))
    target = await target_of(desk, body.get("model"), key.project)
    answer = await unless_gone(request, ask_engine(desk, key, target, COMPLETIONS, question))
    return await reply(request, answer)


async def ask_engine(desk: Desk, key: Key, target: Target, path: str, body: dict[str, Any]) -> Answer:
    """The one way from a client's question to an engine; whoever asks reads the answer to its end, or closes it.

    What engines keep of prompts is shared within a project only: how fast another's answer comes must tell nobody what it asked.
    """
    own = body.get("cache_salt") or ""
    if path in SALTED[desk.settings.engine] and isinstance(own, str):
        body = body | {"cache_salt": f"{key.project}:{own}"}
    with await desk.admission.admit(key, target, path, body) as ticket:
        return ticket.follow(await desk.router.ask(target, path, ticket.asking(path, body)))


def with_priority(request: Request, desk: Desk, body: dict[str, Any]) -> dict[str, Any]:
    """The body with the priority of the request's header; only our own engine knows the word."""
    is_batch = request.headers.get(PRIORITY_HEADER) == "batch" and desk.settings.engine == "embedded"
    return body | {"priority": "batch"} if is_batch else body


@dataclass(frozen=True)
class Changes:
    """What the desk does to the answer of one chat before the client sees it, and that it is kept; most often nothing."""

    desk: Desk
    key: Key
    body: dict[str, Any]

    @property
    def is_kept(self) -> bool:
        return self.body.get("store") is True

    @property
    def is_any(self) -> bool:
        return self.is_kept or wire.is_legacy(self.body) or self.body.get("service_tier") is not None

    @property
    def hides_usage(self) -> bool:
        return not (self.body.get("stream_options") or {}).get("include_usage")

    def asked(self, question: dict[str, Any]) -> dict[str, Any]:
        """The question to the engine; a stream that is kept is kept with its usage."""
        options = question.get("stream_options")
        if not (self.is_any and self.body.get("stream") is True and isinstance(options, dict | None)):
            return question
        return question | {"stream_options": (options or {}) | {"include_usage": True}}

    def changed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A completion or a chunk."""
        tier = self.body.get("service_tier")
        if tier is not None:
            answer["service_tier"] = "default" if tier == "auto" else tier
        return wire.to_legacy(answer) if wire.is_legacy(self.body) else answer

    def shown(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """The chunk as the client asked for it; None for one that only tells the usage."""
        if not self.hides_usage or "error" in chunk:
            return chunk
        return {name: value for name, value in chunk.items() if name != "usage"} if chunk.get("choices") else None

    async def keep(self, answer: dict[str, Any]) -> None:
        document = stored.to_document({"request": self.body, "answer": answer})
        metadata = self.body.get("metadata") or {}
        await self.desk.keeper.keep(stored.Stored(
            answer["id"], "completion", self.key.project, answer["model"], unix_now(), metadata, document
        ))  # fmt: skip


async def reply(request: Request, answer: Answer, changes: Changes | None = None) -> Response:
    """The answer on its way to the client: a stream where it is one, else whole; with changes where there are any."""
    is_changed = changes is not None and changes.is_any and answer.status < 400
    if answer.is_stream:
        return Stream(answer, _changed_events(answer, changes) if is_changed and changes is not None else None)
    content = await answer.read()  # it is here already
    if is_changed and changes is not None:
        value = changes.changed(wire.loads(content))
        if changes.is_kept:
            await changes.keep(value)
        content = wire.dumps(value)
    return Response(content, status_code=answer.status, media_type=answer.content_type, headers=answer.headers)


async def _changed_events(answer: Answer, changes: Changes) -> AsyncIterator[bytes]:
    """The stream's events, changed; the answer is kept before the last one, so that who has read it finds it."""
    collected = wire.Collected()
    async for event in each_event(answer):
        chunk = data_of(event)
        if chunk is None:
            if changes.is_kept and collected.is_whole:
                await changes.keep(collected.whole())
            yield event
            continue
        chunk = changes.changed(chunk)
        collected.add(chunk)
        shown = changes.shown(chunk)
        if shown is not None:
            yield to_event(shown)
