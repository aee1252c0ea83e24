"""Adapters that come and go: how long a load takes, swaps while others run, and many more of them than places."""

import asyncio
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

from bench.serve import client
from bench.serve.bases import FOUR, Prompts, adapter_folder, base_id
from bench.serve.client import Ask, PeerFailed
from bench.serve.peers import Http, Pool
from bench.serve.report import Row, compared
from bench.serve.rounds import say
from bench.serve.throughput import ours
from tunesmith.errors import TunesmithError
from tunesmith.models.artifact import read_adapter
from tunesmith.serving.routing import Router, Target, base_target
from tunesmith.serving.upstream import Adapter
from tunesmith.settings import Settings

LOAD_MILLISECONDS = 100.0
NUM_SWAPS = 100
MANY, PLACES, MANY_SHARE = 300, 16, 0.6
MEMORY_GROWTH = 1.1
"""Flat is: at most a tenth more at the end than after the first round."""
ZIPF = 1.1
FILL_REQUESTS, FILL_TOKENS = 80, 1800
"""More than the prefix cache of the built-in base holds (512 MiB, 131,072 tokens), so that its growth is over."""


async def hot_load(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """POST /adapters of an adapter that the engine never saw, its file read from the page cache, without traffic."""
    names = [f"many/{number:03d}" for number in range(20)] if base == "tiny" else list(FOUR)
    peer = await pool.awake(ours(base, holds=()).wanted)
    assert isinstance(peer, Http)
    took = []
    async with client.session(peer.url) as http:
        for each in names:
            path = adapter_folder(pool.bench.folder, base, each)
            start = time.perf_counter()
            await peer.load_adapter(http, each.replace("/", "-"), path)
            took.append(1000 * (time.perf_counter() - start))
        for each in names:
            await client.call(http, f"/adapters/{each.replace('/', '-')}", {}, "DELETE")
    note = f"slowest of {len(took)}: {max(took):.0f} ms"
    return [Row(name, f"{base}, one at a time", "-", statistics.median(took), None, "ms", at_most=LOAD_MILLISECONDS, note=note)]


class Versions:
    """One name that traffic follows while its adapter changes: `v<n>`, whose content is one of four, and what each must say."""

    def __init__(self, peer: Http, folder: Path, base: str, ask: Ask):
        self._peer, self._folder, self._base, self._ask = peer, folder, base, ask
        self.current = "v0"
        self.expected: list[tuple[int, ...] | None] = []
        self.failed = self.mixed = self.answered = 0
        self.errors: list[str] = []

    def _path(self, number: int) -> Path:
        return adapter_folder(self._folder, self._base, FOUR[number % 4])

    async def learn(self, http: aiohttp.ClientSession) -> None:
        """What each of the four says alone."""
        for number in range(4):
            await self._peer.load_adapter(http, f"alone{number}", self._path(number))
            said = await client.complete(http, self._peer.body(self._for(f"alone{number}")))
            self.expected.append(said.tokens)
            await client.call(http, f"/adapters/alone{number}", {}, "DELETE")
        await self._peer.load_adapter(http, "v0", self._path(0))

    def _for(self, adapter: str) -> Ask:
        return Ask(self._ask.prompt, self._ask.text, self._ask.max_tokens, adapter)

    async def ask_on(self, http: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        """A client that asks for whatever is current, again and again."""
        while not stop.is_set():
            version = self.current
            try:
                said = await client.complete(http, self._peer.body(self._for(version)))
            except PeerFailed as error:
                self.failed += 1
                self.errors.append(str(error)[:100])
                continue
            self.answered += 1
            self.mixed += said.tokens != self.expected[int(version[1:]) % 4]

    async def swap(self, http: aiohttp.ClientSession, number: int) -> float:
        """Seconds to load the next version, point traffic at it, and drop the one before."""
        start = time.perf_counter()
        await self._peer.load_adapter(http, f"v{number}", self._path(number))
        before, self.current = self.current, f"v{number}"
        took = time.perf_counter() - start
        # A client that read the name just now has its request under way; the desk waits for those by reference count.
        await asyncio.sleep(0.05)
        await client.call(http, f"/adapters/{before}", {}, "DELETE")
        return took


async def swaps(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Eight clients at once over swaps; every answer must be what its version says alone, token by token."""
    count = 20 if pool.bench.quick else NUM_SWAPS
    peer = await pool.awake(ours(base, holds=()).wanted)
    assert isinstance(peer, Http)
    tokens = prompts.tokens(32)
    versions, stop = Versions(peer, pool.bench.folder, base, Ask(tokens, prompts.text(tokens), 48)), asyncio.Event()
    async with client.session(peer.url) as http:
        await versions.learn(http)
        clients = [asyncio.create_task(versions.ask_on(http, stop)) for _ in range(8)]
        took = []
        for number in range(1, count + 1):
            took.append(1000 * await versions.swap(http, number))
            await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*clients)
        await client.call(http, f"/adapters/{versions.current}", {}, "DELETE")
    load = f"{count} swaps under 8 clients"
    note = f"{versions.answered} answers; slowest load {max(took):.0f} ms"
    return [
        Row(name, load, "-", versions.failed, None, "failed", at_most=0, note="; ".join(versions.errors[:1]) or note),
        Row(name, load, "-", versions.mixed, None, "not its version's answer", at_most=0, note=note),
        Row(name, load, "-", statistics.median(took), None, "ms to load", note=note),
    ]


async def many(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """300 adapters through the desk's router, whose places are 16, Zipf traffic of 8 clients; four adapters the same way."""
    await pool.drop()
    count = 80 if pool.bench.quick else 240
    targets = [_target(pool, base, f"many/{number:03d}") for number in range(MANY)]
    four = [_target(pool, base, adapter) for adapter in FOUR]
    dice, weights = random.Random(5), [1 / (rank + 1) ** ZIPF for rank in range(MANY)]
    with tempfile.TemporaryDirectory(prefix="bench-desk-") as home:
        router = Router(Settings(data_dir=Path(home), threads=pool.bench.threads, max_adapters=PLACES))
        try:
            few: list[float] = []
            zipf: list[float] = []
            memory: list[float] = []
            failures: list[str] = []
            used: set[str] = set()
            # Before anything counts: the engine starts, its places fill up, and so does its prefix cache.
            await _traffic(router, four * 4 + dice.choices(targets, weights, k=count), prompts, failures)
            whole = base_target(base_id(pool.bench.folder, base))
            await _traffic(router, [whole] * FILL_REQUESTS, prompts, failures, num_prompt=FILL_TOKENS, num_completion=1)
            for _ in range(pool.bench.rounds):
                few.append(await _traffic(router, list(itertools.islice(itertools.cycle(four), count)), prompts, failures))
                chosen = dice.choices(targets, weights, k=count)
                used.update(target.model_id for target in chosen)
                zipf.append(await _traffic(router, chosen, prompts, failures))
                memory.append(_engines_mib())
                say(f"  four {few[-1]:.0f} tok/s, {MANY} by Zipf {zipf[-1]:.0f} tok/s, engine {memory[-1]:.0f} MiB")
        finally:
            await router.stop()
    load = f"{MANY} adapters ({len(used)} used), {PLACES} places, 8 at once"
    return [
        compared(name, load, "four adapters, the same way", zipf, few, at_least=MANY_SHARE),
        Row(name, load, "-", len(failures), None, "failed", at_most=0, note="; ".join(failures[:1])),
        Row(name, load, "after the first round", memory[-1], memory[0], "MiB", memory[-1] / memory[0], at_most=MEMORY_GROWTH),
    ]


def _target(pool: Pool, base: str, adapter: str) -> Target:
    path = adapter_folder(pool.bench.folder, base, adapter).absolute()
    info = read_adapter(path)
    name = f"ft:{adapter.replace('/', '-')}"
    return Target(name, base_id(pool.bench.folder, base), "none", Adapter(path, info.content_hash))


async def _traffic(
    router: Router, targets: list[Target], prompts: Prompts, failures: list[str], *,
    num_prompt: int = 64, num_completion: int = 64,
) -> float:
    """Tokens per second of eight clients that share the list."""
    left, num_tokens, start = iter(targets), 0, time.perf_counter()

    async def one_client() -> None:
        nonlocal num_tokens
        for target in left:
            lengths = {"prompt": prompts.tokens(num_prompt), "max_tokens": num_completion}
            body = {**lengths, "temperature": 0, "ignore_eos": True}
            try:
                answer = await router.complete(target, body)
                text = await answer.read()
            except TunesmithError as error:
                failures.append(str(error)[:150])
                continue
            if answer.status != 200:
                failures.append(text.decode(errors="replace")[:150])
                continue
            num_tokens += json.loads(text)["usage"]["completion_tokens"]

    await asyncio.gather(*(one_client() for _ in range(8)))
    return num_tokens / (time.perf_counter() - start)


def _engines_mib() -> float:
    mine = psutil.Process(os.getpid()).children(recursive=True)
    return float(sum(each.memory_info().rss for each in mine if "tunesmith.engine" in " ".join(each.cmdline()))) / 2**20

