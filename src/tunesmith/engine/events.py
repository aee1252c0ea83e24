"""How answers leave: collected until they are whole, or as server-sent events. Knows no prompts and no models."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tunesmith.engine.responses import Collected, Json, Tally, error_body
from tunesmith.engine.sequence import Output
from tunesmith.errors import InvalidRequest

Indexed = tuple[int, Output]
"""What is new about the choice of that index."""


class Events:
    """Server-sent events of one answer."""

    def __init__(self, first: Json, include_usage: bool, tally: Tally):
        self._head = first
        self._include_usage = include_usage
        self._tally = tally

    async def send(
        self,
        http: web.Request,
        outputs: asyncio.Queue[Indexed],
        streams: Sequence[Callable[[Output], list[Json]]],
        opening: list[Json],
    ) -> web.StreamResponse:
        """Streams until every choice has finished. An error before the first output is an HTTP error, a later one an event."""
        index, output = await outputs.get()
        if output.error is not None:
            raise output.error
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(http)
        num_left = len(streams)
        chunks = opening
        while True:
            if output.error is not None:
                await response.write(_event(error_body(output.error)))
                return response
            is_last = output.finish_reason is not None
            self._tally.add(index, len(output.tokens), output.num_cached_prompt if is_last else None)
            num_left -= is_last
            for chunk in [*chunks, *streams[index](output)]:
                await response.write(_event(chunk | ({"usage": None} if self._include_usage else {})))
            if not num_left:
                break
            chunks = []
            index, output = await outputs.get()
        if self._include_usage:
            await response.write(_event(self._head | {"choices": [], "usage": self._tally.body()}))
        await response.write(b"data: [DONE]\n\n")
        return response


def _event(chunk: Json) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def collect(outputs: asyncio.Queue[Indexed], num_choices: int) -> list[Collected]:
    """All choices, when all have finished. Raises the first error."""
    choices = [Collected() for _ in range(num_choices)]
    num_left = num_choices
    while num_left:
        index, output = await outputs.get()
        if output.error is not None:
            raise output.error
        choices[index].add(output)
        num_left -= output.finish_reason is not None
    return choices


async def read_json_body(request: web.Request) -> Any:
    """The request's body as a JSON value. Raises InvalidRequest."""
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", hint="Send a JSON object.") from error
