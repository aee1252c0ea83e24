"""What the desk asks of an engine, whoever built it. Ours, vLLM's and any OpenAI endpoint are interchangeable behind this."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp

from tunesmith.errors import EngineFailed

State = Literal["down", "starting", "ready"]


class Answer:
    """An upstream's answer, passed on as it came: status, content type and bytes. An error is in OpenAI's shape already."""

    def __init__(self, response: aiohttp.ClientResponse):
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "application/json")

    async def read(self) -> bytes:
        """The whole body. Raises EngineFailed if the engine died meanwhile."""
        try:
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _died() from error
        finally:
            self.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, for server-sent events; an engine that dies says so in a last event.

        Leaving the iterator early (`aclose`) closes the connection, which aborts the work upstream.
        """
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError):
            yield b"data: " + json.dumps({"error": _body(_died())}).encode() + b"\n\n"
        finally:
            self.close()

    def close(self) -> None:
        """Ends the connection; an answer that has not come to its end is aborted. May be called twice."""
        self._response.close()


def _died() -> EngineFailed:
    return EngineFailed("The engine stopped while it answered.", hint="Ask again; it is started anew.")


def _body(error: EngineFailed) -> dict[str, Any]:
    return {"message": str(error), "type": "server_error", "param": None, "code": error.code}


class Upstream(Protocol):
    """One base at one precision, and any number of adapters on it."""

    async def start(self) -> None:
        """Returns when the engine answers; at once if it does already. Raises EngineFailed with the reason."""
        ...

    async def health(self) -> State: ...

    async def models(self) -> list[str]:
        """The base's id and the names of the loaded adapters."""
        ...

    async def ensure_adapter(self, name: str, path: Path, content_hash: str) -> None:
        """Loads the adapter in `path` as `name` unless it is loaded. Raises InvalidRequest if its bytes are not as hashed."""
        ...

    async def drop_adapter(self, name: str) -> None:
        """Forgets an adapter; one that is not loaded is no error."""
        ...

    async def ask(self, path: str, body: dict[str, Any]) -> Answer:
        """POST to `path`, such as /v1/chat/completions. Raises EngineFailed when nobody answers."""
        ...

    async def stop(self) -> None: ...
