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
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from tunesmith.api.bases import find_offered
from tunesmith.api.deps import Desk, DeskDep
from tunesmith.db import models
from tunesmith.errors import InvalidRequest
from tunesmith.serving.answer import Answer
from tunesmith.serving.routing import CHAT, COMPLETIONS, DETOKENIZE, EMBEDDINGS, TOKENIZE, Target, base_target, to_target

router = APIRouter()
T = TypeVar("T")


async def ask(request: Request, desk: DeskDep) -> Response:
    """The path is the engine's too."""
    path = request.url.path
    body = _parsed(await request.body())
    target = await _target(desk, body)
    answer = await _unless_gone(request, desk.router.ask(target, path, body))
    if body.get("stream") is True and answer.status < 400:
        return Stream(answer)
    content = await _unless_gone(request, answer.read())
    return Response(content, status_code=answer.status, media_type=answer.content_type, headers=answer.headers)


for path in (CHAT, COMPLETIONS, EMBEDDINGS, TOKENIZE, DETOKENIZE):
    router.post(path)(ask)


class Stream(StreamingResponse):
    """An answer as events. It is closed however this ends, also when the client left before the first event was sent."""

    def __init__(self, answer: Answer):
        super().__init__(answer.chunks(), media_type=answer.content_type, headers={"cache-control": "no-cache"})
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


async def _target(desk: Desk, body: dict[str, Any]) -> Target:
    """What `model` means. Raises InvalidRequest without one, NotFound for an unknown one."""
    model = body.get("model")
    if not isinstance(model, str):
        code = "invalid_value" if "model" in body else "missing_required_parameter"
        raise InvalidRequest("You must provide a model.", hint="GET /v1/models lists them.", param="model", code=code)
    if model in desk.settings.bases and model not in desk.withdrawn:
        return base_target(model)
    return await run_in_threadpool(_look_up, desk, model)


def _look_up(desk: Desk, model: str) -> Target:
    with desk.database.read() as connection:
        tuned = models.find(connection, model)
    if tuned is not None:
        return to_target(tuned, desk.settings.dirs.root)
    if desk.settings.engine == "openai":
        return base_target(model)  # the server elsewhere knows whether it has it
    return base_target(find_offered(desk, model).id)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
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
