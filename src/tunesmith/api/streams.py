"""What all that asks engines shares: JSON bodies, clients that leave, answers as server-sent events. Knows no fields."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from tunesmith.errors import InvalidRequest
from tunesmith.serving.answer import EVENTS, Answer

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


class Stream(StreamingResponse):
    """An answer as events: as they come, or as `chunks` make of them. It is closed however this ends, also when the client left
    before the first event was sent."""

    def __init__(self, answer: Answer, chunks: AsyncIterator[bytes] | None = None):
        super().__init__(chunks or answer.chunks(), media_type=EVENTS, headers={"cache-control": "no-cache", **answer.headers})
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def each_event(answer: Answer) -> AsyncIterator[bytes]:
    """The answer's events one by one, each with the empty line that ends it."""
    async for chunk in answer.chunks():
        for event in chunk.split(b"\n\n"):
            if event:
                yield event + b"\n\n"


def data_of(event: bytes) -> dict[str, Any] | None:
    """The JSON object of an event; None for [DONE] and comments."""
    if not event.startswith(b"data: {"):
        return None
    value = json.loads(event[len(b"data: "):])
    return value if isinstance(value, dict) else None


def to_event(value: dict[str, Any], name: str | None = None) -> bytes:
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


async def json_body(request: Request) -> dict[str, Any]:
    """Raises InvalidRequest for what is not a JSON object."""
    data = await request.body()
    try:
        body = json.loads(data)
        if b"\\ud" in data.lower():
            json.dumps(body, ensure_ascii=False).encode()  # half a character, which no reply could show
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
