"""Around every request, in pure ASGI (a BaseHTTPMiddleware would hide that a client left): its id, its time, its size, its last
resort.
"""

import random
import re
import time

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.api import errors
from tunesmith.schemas.files import MAX_PART_BYTES

log = structlog.get_logger("tunesmith.api")

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Largest body that is not an upload: a conversation of a few million characters."""
MULTIPART_BYTES = 1024 * 1024
"""What a form may hold beside its file."""
PART_PATH = re.compile("/v1/uploads/[^/]+/parts")


class Boundary:
    """Outermost: gives each request an id, puts it and the time that was taken on each reply, and turns what nobody expected into
    a logged 500."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, started = time.perf_counter(), False
        request_id = f"req_{random.getrandbits(96):024x}"  # a name, not a secret

        async def named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                took = int((time.perf_counter() - began) * 1000)
                message["headers"] = [
                    *message.get("headers", ()), (b"x-request-id", request_id.encode()), (b"openai-processing-ms", b"%d" % took)
                ]  # fmt: skip
            await send(message)

        try:
            await self._app(scope, receive, named)
        except ClientDisconnect:
            log.info("client left", request_id=request_id, path=scope["path"])
        except Exception:  # the process boundary: a bug in one request is logged once and stays in it
            log.exception("unexpected error", request_id=request_id, method=scope["method"], path=scope["path"])
            if not started:
                message = f"The server met an unexpected error; its log says more about {request_id}."
                await errors.response(message, status=500, code="internal_error")(scope, receive, named)


class BodyLimit:
    """Refuses a body that is too large, by its declared length or, where none is declared, when the bytes have come."""

    def __init__(self, app: ASGIApp, *, max_upload_bytes: int):
        self._app = app
        self._max_upload_bytes = max_upload_bytes + MULTIPART_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._limit(scope["path"])
        message = f"The request is larger than {limit} bytes."
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdigit() or int(declared) > limit:
            code = "request_too_large"
            return await errors.response(message, status=413, code=code)(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            received = await receive()
            seen += len(received.get("body", b""))
            if seen > limit:
                raise HTTPException(413, message)
            return received

        await self._app(scope, counted, send)

    def _limit(self, path: str) -> int:
        if PART_PATH.fullmatch(path):
            return MAX_PART_BYTES + MULTIPART_BYTES
        return self._max_upload_bytes if path == "/v1/files" else MAX_BODY_BYTES
