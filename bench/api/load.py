"""Loads on one server that speaks OpenAI's protocol: one after the other, many at once, at a rate, streams. Judges nothing."""

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

BODY = {"model": "mock", "messages": [{"role": "user", "content": "What is the capital of France? Answer in one word."}]}
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Server:
    """`url` without /v1."""

    name: str
    url: str
    key: str = "none"
    pid: int = 0
    model: str = "mock"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}

    def body(self, **fields: Any) -> bytes:
        return json.dumps(BODY | {"model": self.model, "max_tokens": 1} | fields).encode()


@dataclass
class Result:
    """Seconds of each request that was answered with 200; of those refused with 429; how many failed otherwise."""

    seconds: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    unsaid: int = 0
    """Refused without saying when to ask again."""
    failed: int = 0
    wall: float = 0.0

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.seconds) / self.wall if self.wall else 0.0

    def note(self, status: int, has_retry_after: bool, seconds: float) -> None:
        if status == 200:
            self.seconds.append(seconds)
        elif status == 429:
            self.refused.append(seconds)
            self.unsaid += not has_retry_after
        else:
            self.failed += 1


def quantile(values: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120))


async def ask(client: aiohttp.ClientSession, server: Server, body: bytes, result: Result, since: float | None = None) -> None:
    """One question; its time counts from `since`, when it was due, so that a client that falls behind hides nothing."""
    began = since if since is not None else time.perf_counter()
    try:
        async with client.post(server.url + CHAT, data=body, headers=server.headers) as response:
            await response.read()
            result.note(response.status, "Retry-After" in response.headers, time.perf_counter() - began)
    except (aiohttp.ClientError, OSError, TimeoutError):
        result.failed += 1


async def sequential(servers: list[Server], count: int, rounds: int) -> dict[str, list[Result]]:
    """`count` questions one after the other, in turns of one to each server, so that what disturbs one disturbs all."""
    results: dict[str, list[Result]] = {server.name: [] for server in servers}
    async with session() as client:
        for server in servers:
            for _ in range(20):
                await ask(client, server, server.body(), Result())
        for _ in range(rounds):
            now = {server.name: Result() for server in servers}
            for _ in range(count):
                for server in servers:
                    await ask(client, server, server.body(), now[server.name])
            for name, result in now.items():
                results[name].append(result)
    return results


async def at_once(server: Server, clients: int, seconds: float) -> Result:
    """Each client asks again as soon as it was answered."""
    result, until = Result(), time.perf_counter() + seconds
    body = server.body()

    async def one(client: aiohttp.ClientSession) -> None:
        while time.perf_counter() < until:
            await ask(client, server, body, result)

    began = time.perf_counter()
    async with session() as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    result.wall = time.perf_counter() - began
    return result


async def at_rate(server: Server, rate: float, seconds: float, seed: int = 0) -> Result:
    """Questions arrive as by chance (Poisson), whether or not the ones before were answered."""
    result, chance, body = Result(), random.Random(seed), server.body()
    tasks: set[asyncio.Task[None]] = set()
    began = due = time.perf_counter()
    async with session() as client:
        while due < began + seconds:
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.ensure_future(ask(client, server, body, result, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        result.wall = time.perf_counter() - began
        await asyncio.gather(*tasks)
    return result


@dataclass
class Streams:
    """`delays`: seconds from the engine's sending of a token to its arrival; `firsts`: from a question to its first token."""

    delays: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    cut: int = 0
    peak_mib: float = 0.0


async def streams(server: Server, count: int, tokens: int, ramp: float) -> Streams:
    """`count` streams of `tokens` tokens, begun evenly over `ramp` seconds; all are open together when `ramp` is the shorter."""
    found, body = Streams(), server.body(stream=True, max_tokens=tokens)

    async def one(client: aiohttp.ClientSession, wait: float) -> None:
        await asyncio.sleep(wait)
        began, seen = time.perf_counter(), 0
        try:
            async with client.post(server.url + CHAT, data=body, headers=server.headers) as response:
                async for line in response.content:
                    now = time.time()
                    if line.startswith(b'data: {') and (stamp := sent_at(line)) is not None:
                        found.delays.append(now - stamp)
                        if not seen:
                            found.firsts.append(time.perf_counter() - began)
                        seen += 1
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        found.cut += seen != tokens

    async def watch() -> None:
        while True:
            found.peak_mib = max(found.peak_mib, memory_mib(server.pid))
            await asyncio.sleep(0.5)

    async with session() as client:
        watching = asyncio.ensure_future(watch())
        await asyncio.gather(*(one(client, ramp * index / count) for index in range(count)))
        watching.cancel()
    return found


def sent_at(line: bytes) -> float | None:
    """The time in a chunk of the mock engine; None for one without a token."""
    choices = json.loads(line[len(b"data: "):]).get("choices")
    content = choices[0].get("delta", {}).get("content") if choices else None
    return float(content) if content else None


def memory_mib(pid: int) -> float:
    """Resident memory of a process and its children."""
    total = 0.0
    for line in _status(pid):
        if line.startswith("VmRSS:"):
            total += int(line.split()[1]) / 1024
    return total


def _status(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/status") as file:
            return file.readlines()
    except FileNotFoundError:
        return []


def added(ours: list[Result], direct: list[Result], share: float) -> float:
    """Median over rounds of the difference of a quantile, in milliseconds."""
    pairs = zip(ours, direct, strict=True)
    return 1000 * statistics.median(quantile(one.seconds, share) - quantile(other.seconds, share) for one, other in pairs)
