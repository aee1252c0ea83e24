"""The HTTP connection to one engine: a Unix socket or an address, with its key. Knows no engine's routes."""

import json
from pathlib import Path
from typing import Any

import aiohttp

from tunesmith.errors import EngineFailed, InvalidRequest, TunesmithError

CONNECT_SECONDS = 10.0
KEEP_SECONDS = 2.0
"""How long an idle connection is used again; less than the engine's patience (uvicorn has 5 s), which would end it under us."""


class Client:
    """Every failure to reach the engine is an EngineFailed that names it."""

    def __init__(self, label: str, *, base_url: str = "http://engine", socket: Path | None = None, key: str = ""):
        self._label = label
        self._base_url = base_url
        self._session = aiohttp.ClientSession(
            connector=(
                aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=KEEP_SECONDS)
                if socket
                else aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_SECONDS)
            ),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> aiohttp.ClientResponse:
        """The answer's head; its body is still to be read. Raises EngineFailed."""
        try:
            # Not followed: an engine that sends us elsewhere is not the one that we started.
            return await self._session.request(method, self._base_url + path, json=body, allow_redirects=False)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineFailed(f"{self._label} stopped while it answered.", hint="Ask again; it is started anew.") from error

    async def text(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Status and body. Raises EngineFailed."""
        response = await self.request(method, path, body)
        try:
            return response.status, await response.text()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(f"{self._label} stopped while it answered.", hint="Ask again; it is started anew.") from error
        finally:
            response.close()

    async def json(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Status and value; a body that is no JSON is an empty object. Raises EngineFailed."""
        status, text = await self.text(method, path, body)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, {}

    async def expect(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The value of an answer that is no error. Raises what the engine said: InvalidRequest for its 4xx, EngineFailed else."""
        status, value = await self.json(method, path, body)
        if status >= 400:
            raise said(status, value, self._label)
        return value

    async def close(self) -> None:
        await self._session.close()


def said(status: int, value: Any, label: str) -> TunesmithError:
    """An engine's error answer as ours."""
    error = value.get("error") if isinstance(value, dict) else None
    told = error if isinstance(error, dict) else {}
    kind: type[TunesmithError] = InvalidRequest if status < 500 else EngineFailed
    code = told.get("code")
    message = str(told.get("message") or f"{label} answered {status}.")
    return kind(message, param=told.get("param"), code=code if isinstance(code, str) else None)
