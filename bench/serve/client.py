"""Loads over HTTP: so many completions at once, or streams that come when they come. Knows OpenAI's shapes, not who answers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

LONGEST_SECONDS = 300.0
"""No burst takes longer; a peer that hangs fails."""
Json = dict[str, Any]


class PeerFailed(Exception):
    """A peer did not start or did not answer; the sentence goes into the table."""


@dataclass(frozen=True)
class Ask:
    """One request, as every peer understands it."""

    prompt: list[int]
    text: str
    """The same prompt for a server that takes no token ids."""
    max_tokens: int = 64
    adapter: str | None = None
    extra: Json = field(default_factory=dict)
    """Fields that only some servers know."""


@dataclass(frozen=True)
class Said:
    """One answer."""

    num_tokens: int
    tokens: tuple[int, ...] | None
    """None from a server that tells text only."""
    text: str
    raw: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Burst:
    """Requests that were sent at the same moment."""

    seconds: float
    said: list[Said]

    @property
    def rate(self) -> float:
        """Tokens that were generated, per second; prefill included."""
        return sum(said.num_tokens for said in self.said) / self.seconds


@dataclass
class Streamed:
    """One streamed answer, in seconds after it was sent."""

    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    num_tokens: int = 0
    text: str = ""


@asynccontextmanager
async def session(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """New connections each time: kept ones go stale while a peer is frozen."""
    timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS)
    async with aiohttp.ClientSession(base_url=url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as made:
        yield made


async def call(http: aiohttp.ClientSession, path: str, body: Json, method: str = "POST") -> Json:
    """A JSON answer, or {} for one that is no JSON. Raises PeerFailed for a status that is not 2xx."""
    try:
        async with http.request(method, path, json=body) as response:
            text = await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise PeerFailed(f"{path}: {type(error).__name__} {error}") from error
    if response.status >= 300:
        raise PeerFailed(f"{path}: {response.status} {text[:200]}")
    answer = json.loads(text) if text.startswith("{") else {}
    return dict(answer)


async def complete(http: aiohttp.ClientSession, body: Json, path: str = "/v1/completions") -> Said:
    answer = await call(http, path, body)
    choice = answer["choices"][0]
    tokens = choice.get("token_ids")
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return Said(answer["usage"]["completion_tokens"], tuple(tokens) if tokens is not None else None, text or "", answer)


async def burst(url: str, bodies: list[Json], path: str = "/v1/completions") -> Burst:
    """All at once. Raises PeerFailed when one of them fails."""
    async with session(url) as http:
        start = time.perf_counter()
        said = await asyncio.gather(*(complete(http, body, path) for body in bodies))
        return Burst(time.perf_counter() - start, list(said))


async def stream(http: aiohttp.ClientSession, body: Json) -> Streamed:
    """Server-sent events of /v1/completions; an event counts as one token unless the usage says otherwise."""
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    result, start, last = Streamed(), time.perf_counter(), 0.0
    try:
        async with http.post("/v1/completions", json=asked) as response:
            if response.status >= 300:
                raise PeerFailed(f"/v1/completions: {response.status} {(await response.text())[:200]}")
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                now, event = time.perf_counter() - start, json.loads(line[6:])
                if "error" in event:
                    raise PeerFailed(str(event["error"])[:200])
                if event.get("choices"):
                    result.text += event["choices"][0].get("text") or ""
                    if last:
                        result.gaps.append(now - last)
                    else:
                        result.first = now
                    last = now
                if event.get("usage"):
                    result.num_tokens = event["usage"]["completion_tokens"]
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise PeerFailed(f"{type(error).__name__} {error}") from error
    return result
