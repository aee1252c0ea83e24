"""What engines answer: completions, embeddings, tokens. Finds what `model` means, and passes the question on and the answer back.

The fields of a question are the engine's matter: it refuses what it does not know, in OpenAI's words. When the client leaves,
the engine's work ends, also before the first token.
"""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.resolve import target_of
from tunesmith.db.keys import Key
from tunesmith.errors import InvalidRequest
from tunesmith.serving.answer import Answer
from tunesmith.serving.routing import CHAT, COMPLETIONS, DETOKENIZE, EMBEDDINGS, TOKENIZE, Target

router = APIRouter(dependencies=[needs("model.request")])
T = TypeVar("T")


PRIORITY = "x-tunesmith-priority"
"""Header that says `batch`: the request waits while anything interactive does."""
SALTED = {"embedded": (CHAT, COMPLETIONS, EMBEDDINGS), "vllm": (CHAT, COMPLETIONS), "openai": ()}
"""Engine -> the paths on which it knows `cache_salt`."""


async def ask(request: Request, desk: DeskDep, key: KeyDep) -> Response:
    """The path is the engine's too."""
    path = request.url.path
    body = _parsed(await request.body())
    target = await target_of(desk, body.get("model"), key.project)
    answer = await unless_gone(request, ask_engine(desk, key, target, path, with_priority(request, desk, body)))
    if body.get("stream") is True and answer.status < 400:
        return Stream(answer)
    content = await unless_gone(request, answer.read())
    return Response(content, status_code=answer.status, media_type=answer.content_type, headers=answer.headers)


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
    is_batch = request.headers.get(PRIORITY) == "batch" and desk.settings.engine == "embedded"
    return body | {"priority": "batch"} if is_batch else body


for path in (CHAT, COMPLETIONS, EMBEDDINGS, TOKENIZE, DETOKENIZE):
    router.post(path)(ask)


class Stream(StreamingResponse):
    """An answer as events. It is closed however this ends, also when the client left before the first event was sent."""

    def __init__(self, answer: Answer):
        super().__init__(answer.chunks(), media_type=answer.content_type, headers={"cache-control": "no-cache", **answer.headers})
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


def _parsed(data: bytes) -> dict[str, Any]:
    """Raises InvalidRequest for what is not a JSON object."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body is not a JSON object.", code="invalid_value")
    return body


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Raises ClientDisconnect then."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
