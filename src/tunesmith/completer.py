"""Asks for tokens: messages in, completion out, over the OpenAI protocol. Who answers (ours, vLLM, OpenAI) is not known here.

`Completer` is what evals, judges, rollouts and chat hold; `HttpCompleter` is the one that speaks to a port or a Unix socket.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from tunesmith.errors import EngineFailed, InvalidRequest, NotFound, TunesmithError
from tunesmith.types import Message


@dataclass(frozen=True)
class Completion:
    """One answer. `message` is the assistant's, `finish_reason` stop, length or tool_calls."""

    message: Message
    finish_reason: str
    num_prompt_tokens: int
    num_completion_tokens: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Completer(Protocol):
    async def complete(self, model: str, messages: list[Message], **sampling: Any) -> Completion:
        """One completion of a conversation. Raises NotFound for an unknown model, EngineFailed when nobody answers."""
        ...


class HttpCompleter:
    """A completer over HTTP: `base_url` as in the openai client (`http://host:port/v1`), `socket` for a Unix socket."""

    def __init__(self, base_url: str, *, api_key: str = "", socket: str | None = None):
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "HttpCompleter":
        connector = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("HttpCompleter is used with `async with`")
        return self._session

    async def complete(self, model: str, messages: list[Message], **sampling: Any) -> Completion:
        body = {"model": model, "messages": messages, **sampling}
        return to_completion(await self._post("/chat/completions", body))

    async def stream(self, model: str, messages: list[Message], **sampling: Any) -> AsyncIterator[str]:
        """The answer's text as it comes."""
        body = {"model": model, "messages": messages, "stream": True, **sampling}
        async with self.session.post(f"{self.base_url}/chat/completions", json=body) as response:
            await _raise_for(response)
            async for line in response.content:
                data = line.decode().removeprefix("data: ").strip()
                if data and data != "[DONE]":
                    choices = json.loads(data).get("choices") or []
                    if choices and choices[0]["delta"].get("content"):
                        yield choices[0]["delta"]["content"]

    async def _post(self, path: str, body: dict[str, Any]) -> bytes:
        try:
            async with self.session.post(self.base_url + path, json=body) as response:
                await _raise_for(response)
                return await response.read()
        except aiohttp.ClientError as error:
            raise EngineFailed(f"No answer from {self.base_url}: {error}.", hint="Is the server running?") from error


async def _raise_for(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        raise failure(response.status, await response.read())


def to_completion(body: bytes) -> Completion:
    """The first choice of a chat completion in OpenAI's shape. Raises EngineFailed for anything else."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        usage = answer.get("usage") or {}
        return Completion(
            message=choice["message"],
            finish_reason=choice["finish_reason"],
            num_prompt_tokens=usage.get("prompt_tokens", 0),
            num_completion_tokens=usage.get("completion_tokens", 0),
            token_ids=choice.get("token_ids") or [],
            logprobs=[token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or []],
        )
    except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        message = f"The answer is no chat completion: {body[:200]!r}."
        raise EngineFailed(message, hint="Is it an OpenAI-compatible server?") from error


def failure(status: int, body: bytes) -> TunesmithError:
    """The error that a server answered with: its message and code, as one of ours."""
    try:
        error = json.loads(body)["error"]
        message, code, param = str(error["message"]), error.get("code"), error.get("param")
    except (json.JSONDecodeError, KeyError, TypeError):
        message, code, param = body[:300].decode(errors="replace") or f"HTTP status {status}", None, None
    kind: type[TunesmithError] = {404: NotFound}.get(status, InvalidRequest if status < 500 else EngineFailed)
    return kind(message, code=code, param=param)
