"""The HTTP connection to one engine: a Unix socket or an address, with its key. Knows no engine's routes."""

import json
from pathlib import Path
from typing import Any

from tunesmith.errors import EngineFailed, InvalidRequest, TunesmithError
from tunesmith.serving.wire import Response, Wire


class Client:
    """Every failure to reach the engine is an EngineFailed that names it."""

    def __init__(self, label: str, *, base_url: str = "http://engine", socket: Path | None = None, key: str = ""):
        self._label = label
        self._wire = Wire(base_url, socket, key)

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Response:
        """The answer's head; its body is still to be read. Raises EngineFailed."""
        try:
            return await self._wire.ask(method, path, None if body is None else json.dumps(body).encode())
        except OSError as error:
            raise EngineFailed(f"{self._label} stopped while it answered.", hint="Ask again; it is started anew.") from error

    async def text(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Status and body. Raises EngineFailed."""
        response = await self.request(method, path, body)
        try:
            return response.status, (await response.read()).decode(errors="replace")
        except OSError as error:
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
        await self._wire.close()


def said(status: int, value: Any, label: str) -> TunesmithError:
    """An engine's error answer as ours."""
    error = value.get("error") if isinstance(value, dict) else None
    told = error if isinstance(error, dict) else {}
    kind: type[TunesmithError] = InvalidRequest if status < 500 else EngineFailed
    code = told.get("code")
    message = str(told.get("message") or f"{label} answered {status}.")
    return kind(message, param=told.get("param"), code=code if isinstance(code, str) else None)
