"""Seconds from the command to the first answer: of an engine, of the whole server, of a bare script, of the others."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from bench.serve import client
from bench.serve.bases import Prompts, base_folder
from bench.serve.client import Ask, PeerFailed
from bench.serve.peers import START_SECONDS, Bench, Http, Pool, Wanted, free_port
from bench.serve.report import Row, compared
from bench.serve.rounds import say

OVER_BARE, OVER_VLLM, LOADING_SECONDS = 1.4, 1 / 3, 2.0
BARE = """
import sys, torch
from transformers import LlamaForCausalLM
LlamaForCausalLM.from_pretrained(sys.argv[1])
print("loaded", flush=True)
"""
Times = dict[str, float]
"""What was reached -> seconds after the command."""


async def _bare(bench: Bench, base: str) -> Times:
    start = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BARE, str(base_folder(bench.folder, base)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=bench.environment(),
    )
    assert child.stdout is not None
    line = await child.stdout.readline()
    took = time.perf_counter() - start
    await child.wait()
    if line != b"loaded\n":
        raise PeerFailed("the bare script ended without loading")
    return {"ready": took}


def _server(kind: str, *, again: bool = False) -> Callable[[Bench, str], Awaitable[Times]]:
    """`again`: with the record that the first start on a machine left."""

    async def start(bench: Bench, base: str) -> Times:
        """`ready` is its own word for it; `first token` what a client sees."""
        options = ("--models-dir", str((bench.folder / "models").absolute())) if again else ()
        peer = Http(Wanted(kind, base, options=options), bench, free_port())
        times: Times = {}
        try:
            while "any" not in times:
                times |= await _knock(peer.url, "any", peer.started_at)
                if peer.child.poll() is not None:
                    raise PeerFailed(f"{peer.label} did not start: {peer.last_words()}")
            await peer.ready()
            times["ready"] = peer.seconds_to_ready
            await peer.burst([Ask([300, 301, 302, 303], "one two three", 1)])
            times["first token"] = time.perf_counter() - peer.started_at
        finally:
            await peer.stop()
        return times

    return start


async def _knock(url: str, name: str, start: float) -> Times:
    """{name: seconds} when /health says anything."""
    try:
        async with client.session(url) as http, http.get("/health"):
            return {name: time.perf_counter() - start}
    except (aiohttp.ClientError, OSError, TimeoutError):
        await asyncio.sleep(0.02)
        return {}


async def _desk(bench: Bench, base: str) -> Times:
    """`tunesmith serve` with an empty data directory: its /health, and the first token of a chat with the base."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-desk-") as home:
        log = Path(home) / "log"
        where = ["--port", str(port), "--data-dir", home]
        command = [sys.executable, "-m", "tunesmith", "serve", *where, "--threads", str(bench.threads)]
        start = time.perf_counter()
        with open(log, "wb") as out:
            child = subprocess.Popen(command, stdout=out, stderr=out, env=bench.environment() | {"COLUMNS": "200"})
        try:
            return await _desk_times(f"http://127.0.0.1:{port}", log, start, child)
        finally:
            child.terminate()
            await asyncio.to_thread(child.wait)


async def _desk_times(url: str, log: Path, start: float, child: "subprocess.Popen[bytes]") -> Times:
    times: Times = {}
    while "any" not in times:
        times |= await _knock(url, "any", start)
        if child.poll() is not None:
            raise PeerFailed(f"tunesmith serve ended: {log.read_text()[-200:]}")
    body = {"model": "tunesmith/tiny", "messages": [{"role": "user", "content": "Repeat: moon"}], "max_tokens": 1}
    async with client.session(url) as http:
        while time.perf_counter() - start < START_SECONDS:
            # Printed once, at some time of the start.
            keys = [line.rpartition(" ")[2] for line in log.read_text().splitlines() if "API key" in line]
            if not keys:
                await asyncio.sleep(0.02)
                continue
            headers = {"Authorization": f"Bearer {keys[0]}"}
            async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
                if response.status == 200:
                    return times | {"first token": time.perf_counter() - start}
                if response.status != 503:
                    raise PeerFailed(f"tunesmith serve: {response.status} {(await response.text())[:200]}")
            await asyncio.sleep(0.1)
    raise PeerFailed("tunesmith serve never answered")


AGAIN = "ours, not for the first time"
STARTS = {
    "bare script": _bare, "ours": _server("ours"), AGAIN: _server("ours", again=True), "tunesmith serve": _desk,
    "transformers serve": _server("transformers serve"), "vllm": _server("vllm"),
}
SLOW = ("transformers serve", "vllm")
"""Started twice, not once more to bring files into the page cache."""


async def start(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """All stopped, files in the page cache (one start of each comes before, but for the slow ones)."""
    await pool.drop()
    series: dict[str, list[Times]] = {who: [] for who in STARTS}
    errors: dict[str, str] = {}
    rounds = 1 if pool.bench.quick else pool.bench.rounds
    for number in range(rounds + 1):
        for who, begin in STARTS.items():
            if who in errors or (who in SLOW and number not in (1, 2)):
                continue
            try:
                times = await begin(pool.bench, base)
            except PeerFailed as error:
                errors[who] = str(error)
                continue
            say(f"  {who}: " + ", ".join(f"{what} {seconds:.2f} s" for what, seconds in times.items()))
            if number:
                series[who].append(times)
    return _rows(name, base, series, errors)


def _rows(name: str, base: str, series: dict[str, list[Times]], errors: dict[str, str]) -> list[Row]:
    def of(who: str, what: str) -> list[float]:
        return [times[what] for times in series[who]]

    def row(load: str, our: str, what: str, who: str, their: str, at_most: float | None = None) -> Row:
        mine, theirs = of(our, what), of(who, their)
        if mine and theirs:
            # The slow ones were started in fewer rounds.
            pairs = min(len(mine), len(theirs))
            mine, theirs = mine[:pairs], theirs[:pairs]
        note = errors.get(our) or errors.get(who, "")
        return compared(name, load, who, mine, theirs, unit="s", at_most=at_most, note=note)

    rows = [
        row("engine ready", "ours", "ready", "bare script", "ready", OVER_BARE),
        row("engine ready, not for the first time", AGAIN, "ready", "bare script", "ready", OVER_BARE),
        row("engine ready", "ours", "ready", "vllm", "ready", OVER_VLLM),
        row("engine, first token", "ours", "first token", "vllm", "first token"),
        row("engine, first token", "ours", "first token", "transformers serve", "first token"),
        row("tunesmith serve, first token", "tunesmith serve", "first token", "bare script", "ready"),
    ]
    for who, load in (("ours", "engine, /health answers"), ("tunesmith serve", "tunesmith serve, /health answers")):
        seconds = sorted(of(who, "any"))
        middle = seconds[len(seconds) // 2] if seconds else None
        rows.append(Row(name, load, "-", middle, None, "s", at_most=LOADING_SECONDS, note=errors.get(who, "")))
    return rows
