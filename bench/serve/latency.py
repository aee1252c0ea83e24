"""What one client waits for: a shared prefix, arrivals that nobody plans, a busy process beside it."""

import asyncio
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence

from bench.serve import client
from bench.serve.bases import Prompts
from bench.serve.client import Ask, PeerFailed, Streamed
from bench.serve.peers import Http, Pool, Wanted
from bench.serve.report import Row, compared
from bench.serve.rounds import Contestant, Load, interleave, say, warm
from bench.serve.throughput import ours

PREFIX_FASTER = 4.0
BUSY_SHARE = 0.25
PREFIX_TOKENS, PREFIX_REQUESTS = 500, 8
OPEN_SHARE = 0.6
"""Of its capacity, which a burst of 32 has shown."""
BUSY = "import torch; torch.set_num_threads({threads}); a = torch.randn(512, 512)\nwhile True: a = (a @ a).tanh()"
"""What training does most of the time."""


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def _streams(peer: Http, asks: Sequence[Ask], waits: Sequence[float]) -> list[Streamed]:
    """Each is sent so many seconds after the start."""
    async with client.session(peer.url) as http:

        async def one(ask: Ask, wait: float) -> Streamed:
            await asyncio.sleep(wait)
            return await client.stream(http, peer.body(ask))

        return list(await asyncio.gather(*(one(ask, wait) for ask, wait in zip(asks, waits, strict=True))))


async def prefix(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Eight requests at once after a first one; without the cache: the same, each with a salt of its own."""
    rows = []
    for kind, at_least in (("ours", PREFIX_FASTER), ("vllm", None)):
        cold: list[float] = []
        found: list[float] = []
        note = ""
        try:
            peer = await pool.awake(ours(base).wanted if kind == "ours" else Wanted(kind, base))
            assert isinstance(peer, Http)
            for number in range(pool.bench.rounds):
                cold.append(await _prefix_round(peer, prompts, f"{number}-"))
                found.append(await _prefix_round(peer, prompts, None))
        except PeerFailed as error:
            note = str(error)
        load = f"{PREFIX_REQUESTS} at once, {PREFIX_TOKENS} shared + 16 in"
        milliseconds = [[1000 * value for value in series] for series in (cold, found)]
        what = f"{kind}, the prefix cached (`ours` is {kind} without)"
        rows.append(compared(name, load, what, *milliseconds, unit="ms to first token", at_least=at_least, note=note))
    return rows


async def _prefix_round(peer: Http, prompts: Prompts, salt: str | None) -> float:
    """Median seconds to the first token; `salt` keeps the requests apart, None shares the prefix, which the first one leaves."""
    shared = prompts.tokens(PREFIX_TOKENS)
    asks = []
    for number in range(PREFIX_REQUESTS + 1):
        extra = {} if salt is None else {"cache_salt": f"{salt}{number}"}
        asks.append(Ask(shared + prompts.tokens(16), "", 16, extra=extra))
    await _streams(peer, asks[:1], [0.0])
    streamed = await _streams(peer, asks[1:], [0.0] * PREFIX_REQUESTS)
    return statistics.median(stream.first for stream in streamed)


async def open_loop(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Poisson arrivals at a rate that no answer changes: each peer at 60 % of its own capacity, and vLLM's load for both."""
    seconds = 8.0 if pool.bench.quick else 20.0
    wanted = {"ours": ours(base).wanted, "vllm": Wanted("vllm", base)}
    capacity: dict[str, float] = {}
    errors: dict[str, str] = {}
    for kind, each in wanted.items():
        try:
            peer = await pool.awake(each)
            asks = Load(32).asks(prompts)
            await warm(peer, asks, is_first=True)
            capacity[kind] = statistics.median([(await peer.burst(Load(32).asks(prompts))).rate for _ in range(2)])
        except PeerFailed as error:
            errors[kind] = str(error)
    taken = {}
    runs = [("ours", "ours"), ("vllm", "vllm"), ("ours", "vllm")]
    for kind, pace in runs:
        if kind in capacity and pace in capacity:
            arrivals = OPEN_SHARE * capacity[pace] / 64
            try:
                taken[kind, pace] = await _arrivals(await pool.awake(wanted[kind]), prompts, arrivals, seconds)
            except PeerFailed as error:
                errors[kind] = str(error)
    note = "; ".join(f"{kind}: {error}" for kind, error in errors.items())
    rows = []
    for pace, others in (("ours", []), ("vllm", ["vllm"])):
        if ("ours", pace) not in taken:
            rows.append(Row(name, f"paced by {pace}", "vllm" if others else "-", note=note or "not measured"))
            continue
        mine, theirs = taken["ours", pace], taken.get(("vllm", pace), {}) if others else {}
        rate = OPEN_SHARE * capacity[pace] / 64
        for what, value in mine.items():
            other = theirs.get(what)
            load = f"{rate:.1f} requests/s (60 % of {pace}), {what}"
            ratio = value / other if other else None
            rows.append(Row(name, load, "vllm" if others else "-", value, other, "ms", ratio, note=note))
    return rows


async def _arrivals(peer: object, prompts: Prompts, per_second: float, seconds: float) -> dict[str, float]:
    """Milliseconds by name."""
    assert isinstance(peer, Http)
    dice, waits, now = random.Random(7), [], 0.0
    while (now := now + dice.expovariate(per_second)) < seconds:
        waits.append(now)
    asks = [ask for _ in waits for ask in Load(1).asks(prompts)]
    say(f"  {peer.label}: {len(asks)} arrivals in {seconds:.0f} s")
    await warm(peer, asks[:8], is_first=True)
    streams = await _streams(peer, asks, waits)
    gaps = [gap for stream in streams for gap in stream.gaps]
    firsts = [stream.first for stream in streams]
    return {
        f"{word} p{round(100 * share)}": 1000 * quantile(values, share)
        for word, values in (("first token", firsts), ("between tokens", gaps)) for share in (0.5, 0.95)
    }


async def busy(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """One process that computes with one thread, and one with two, against the same load on a quiet machine."""
    load, rows = Load(32), []
    contestants = [ours(base), *(Contestant(Wanted(kind, base)) for kind in ("generate", "vllm"))]
    for threads in (1, 2):
        idle: dict[Contestant, list[float]] = {each: [] for each in contestants}
        beside: dict[Contestant, list[float]] = {each: [] for each in contestants}
        notes: dict[Contestant, str] = {}
        for _ in range(pool.bench.rounds):
            for series in (idle, beside):
                child = _computing(threads) if series is beside else None
                try:
                    taken = await interleave(pool, load, contestants, prompts, rounds=1)
                finally:
                    if child is not None:
                        child.kill()
                        child.wait()
                for each, result in taken.items():
                    series[each] += result.rates
                    notes[each] = result.error
        for each in contestants:
            least = BUSY_SHARE if each == contestants[0] else None
            rows.append(compared(
                name, f"{load}, beside {threads} busy thread(s)", f"{each.label}, idle", beside[each], idle[each],
                at_least=least, note=notes[each] or ("" if least else f"`ours` is {each.label} here"),
            ))
    return rows


def _computing(threads: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", BUSY.format(threads=threads)])
