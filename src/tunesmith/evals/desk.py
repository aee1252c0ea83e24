"""Asks the desk for completions and embeddings, with patience, as a worker does. A `completer.Judge`.

Background work waits its turn: it says so to the engine, and asks again when a limit or a busy engine tells it to. Whoever wants
to stop cancels the task that waits.
"""

import asyncio
from typing import Any

import aiohttp

from tunesmith.completer import (
    AGAIN,
    BACKGROUND,
    BROKEN,
    LONGEST_SECONDS,
    MAX_BROKEN,
    Completion,
    failure,
    retry_after,
    to_completion,
    to_vectors,
)
from tunesmith.errors import EngineFailed
from tunesmith.types import Message

FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0


class DeskClient:
    """`base_url` ends with /v1."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str, embedding_model: str):
        self._session = session
        self._url = base_url.rstrip("/")
        self._headers = BACKGROUND | {"authorization": f"Bearer {api_key}"}
        self._embedding_model = embedding_model

    async def complete(self, model: str, messages: list[Message], **sampling: Any) -> Completion:
        """Raises NotFound for an unknown model, InvalidRequest for what is refused, EngineFailed."""
        return to_completion(await self._ask("/chat/completions", {"model": model, "messages": messages, **sampling}))

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Raises InvalidRequest, EngineFailed."""
        body = {"model": self._embedding_model, "input": texts, "encoding_format": "float"}
        return to_vectors(await self._ask("/embeddings", body))

    async def _ask(self, path: str, body: dict[str, Any]) -> bytes:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                return await self._until_answered(path, body)
        except TimeoutError as error:
            message = f"There was no answer in {LONGEST_SECONDS:.0f} seconds."
            raise EngineFailed(message, hint="Is a limit of the project too low?") from error

    async def _until_answered(self, path: str, body: dict[str, Any]) -> bytes:
        num_broken, wait = 0, FIRST_WAIT
        while True:
            try:
                async with self._session.post(self._url + path, json=body, headers=self._headers) as answer:
                    content = await answer.read()
            except aiohttp.ClientError as error:
                num_broken += 1
                if num_broken == MAX_BROKEN:
                    raise EngineFailed(f"The server could not be asked: {error}.", hint="Is it running?") from error
            else:
                if answer.status < 400:
                    return content
                num_broken += answer.status in BROKEN
                if not _may_ask_again(answer) or num_broken == MAX_BROKEN:
                    raise failure(answer.status, content)
                wait = max(wait, retry_after(answer.headers))
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)


def _may_ask_again(answer: aiohttp.ClientResponse) -> bool:
    return answer.status in AGAIN | BROKEN and answer.headers.get("x-should-retry") != "false"
