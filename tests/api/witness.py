"""Judges every JSON answer that passes: what the specification has must look as it says, and every error as OpenAI's.

An ASGI wrapper around the app under test. What it does not let pass is collected, and fails the tests at the end of the module.
"""

import json
from typing import Any

from api import openai_spec

ALLOWED: dict[str, str] = {
    "status: 'paused' is not one of": "OpenAI's own guide and samples return `paused`, its enumeration has forgotten it",
    "purpose: 'evals' is not one of": "files may be uploaded for evals, but the enumeration of what is returned has forgotten it",
    "data_source: {'type': ": "a run echoes what was asked; every template fits two of the specification's shapes of a message",
    "'type': 'multi', 'graders': {": "OpenAI's own guide sends a table of graders, the specification has one",
    "is not one of ['assistant']": "messages of a stored completion's question have any role, as OpenAI's own sample shows",
    ".embedding: '": "vectors are base64 where the client asks for it; the specification has numbers only",
    "_id: None is not of type 'string'": "an empty list has no first and no last id",
}
"""Part of a problem -> why it is no fault of ours."""


class Witness:
    """`problems` are sentences: operation, status, and what was wrong."""

    def __init__(self, app: Any):
        self._app = app
        self.problems: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, is_json, whole = 0, False, bytearray()

        async def seen(message: Any) -> None:
            nonlocal status, is_json
            if message["type"] == "http.response.start":
                status = message["status"]
                is_json = dict(message["headers"]).get(b"content-type", b"").startswith(b"application/json")
            elif message["type"] == "http.response.body" and is_json:
                whole.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._judge(scope["method"], scope["path"], status, bytes(whole))
            await send(message)

        await self._app(scope, receive, seen)

    def _judge(self, method: str, path: str, status: int, body: bytes) -> None:
        if not body or method == "HEAD":
            return
        operation = openai_spec.find(method, path)
        said = f"{operation or f'{method} {path}'} {status}"
        try:
            value = json.loads(body)
        except ValueError:
            self.problems.append(f"{said}: no JSON: {body[:100]!r}")
            return
        found = openai_spec.problems(operation, status, value)
        self.problems += [f"{said}: {problem}" for problem in found if not any(known in problem for known in ALLOWED)]
