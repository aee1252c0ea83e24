"""Who is measured: each peer is a process of its own, frozen by SIGSTOP while another one is measured.

All get the same threads, fp32, the same model folder and adapters. What differs is in COMMANDS, to be read and doubted.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import psutil

from bench.serve import client
from bench.serve.bases import adapter_folder, base_folder, base_id
from bench.serve.client import Ask, Burst, Json, PeerFailed, Said

START_SECONDS = 300.0
CONTEXT = 2048
AT_ONCE = 32


@dataclass(frozen=True)
class Bench:
    """Where things are, and how much is asked."""

    folder: Path
    vllm_python: Path | None
    vllm_preload: Path | None
    """OpenMP library for vLLM: its documentation asks for Intel's on x86; torch's own is the other choice."""
    threads: int = 2
    rounds: int = 3
    quick: bool = False

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Wanted:
    """One peer in one set-up; equal ones are the same process."""

    kind: str
    base: str
    adapters: tuple[str, ...] = ()
    quantize: str = "none"
    options: tuple[str, ...] = ()
    """More flags of its command line."""

    @property
    def label(self) -> str:
        parts = [self.kind, self.base, f"{len(self.adapters)} adapters" if self.adapters else "", self.quantize, *self.options]
        return " ".join(part for part in parts if part and part != "none")


class Process:
    """A child in a session of its own, with all that it starts."""

    def __init__(self, label: str, command: list[str], environment: dict[str, str], log: Path, *, piped: bool = False):
        self.label = label
        self.started_at = time.perf_counter()
        self.log = log
        self.seconds_to_ready = 0.0
        pipe = subprocess.PIPE if piped else None
        with open(log, "wb") as errors:
            out = subprocess.PIPE if piped else errors
            self.child = subprocess.Popen(
                command, stdin=pipe, stdout=out, stderr=errors, env=environment, start_new_session=True
            )
        self.pid = self.child.pid

    def _all(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._all():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        self.thaw()
        every = self._all()
        self._signal(signal.SIGTERM)
        _, left = await asyncio.to_thread(psutil.wait_procs, every, 10)
        for process in left:
            process.kill()
        await asyncio.to_thread(self.child.wait)

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"exit status {self.child.poll()}, {lines[-1][-200:] if lines else 'nothing said'}"


class Http(Process):
    """A server of the OpenAI protocol."""

    def __init__(self, wanted: Wanted, bench: Bench, port: int):
        command, environment, self.model = COMMANDS[wanted.kind](wanted, bench, port)
        self.wanted, self.bench = wanted, bench
        self.url = f"http://127.0.0.1:{port}"
        log = bench.folder / "logs" / f"{wanted.label.replace(' ', '-').replace('/', '_')}.log"
        super().__init__(wanted.label, command, environment, log)

    async def ready(self) -> None:
        """Raises PeerFailed."""
        while not await self._answers():
            if self.child.poll() is not None:
                raise PeerFailed(f"{self.label} did not start: {self.last_words()}")
            if time.perf_counter() - self.started_at > START_SECONDS:
                raise PeerFailed(f"{self.label} did not answer in {START_SECONDS:.0f} s")
            await asyncio.sleep(0.02)
        self.seconds_to_ready = time.perf_counter() - self.started_at
        async with client.session(self.url) as http:
            if self.wanted.kind == "ours":
                self.model = (await client.call(http, "/v1/models", {}, "GET"))["data"][0]["id"]
            for name in self.wanted.adapters:
                await self.load_adapter(http, name, adapter_folder(self.bench.folder, self.wanted.base, name))

    async def load_adapter(self, http: aiohttp.ClientSession, name: str, path: Path) -> None:
        if self.wanted.kind == "vllm":
            await client.call(http, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path.absolute())})
        else:
            await client.call(http, "/adapters", {"name": name, "path": str(path.absolute())})

    async def _answers(self) -> bool:
        try:
            async with client.session(self.url) as http, http.get("/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def body(self, ask: Ask) -> Json:
        """The request in the words of this server; all greedy, all of exactly max_tokens."""
        if self.wanted.kind == "transformers serve":
            config = json.dumps({"do_sample": False, "max_new_tokens": ask.max_tokens})
            return {"model": self.model, "prompt": ask.text, "max_tokens": ask.max_tokens, "generation_config": config}
        fields = {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
        model = ask.adapter or self.model
        return {"model": model, "prompt": ask.prompt, "max_tokens": ask.max_tokens, **fields, **ask.extra}

    async def burst(self, asks: list[Ask]) -> Burst:
        return await client.burst(self.url, [self.body(ask) for ask in asks])


class Replicas:
    """Our engine twice with one thread each, as `serve --replicas 2` runs it; requests go to them in turn."""

    def __init__(self, wanted: Wanted, bench: Bench, port: int):
        one_thread = replace(bench, threads=1)
        one = replace(wanted, kind="ours")
        self._engines = [Http(one, one_thread, port), Http(one, one_thread, free_port())]

    async def ready(self) -> None:
        await asyncio.gather(*(engine.ready() for engine in self._engines))

    async def burst(self, asks: list[Ask]) -> Burst:
        halves = await asyncio.gather(*(
            engine.burst(asks[number::2]) for number, engine in enumerate(self._engines) if asks[number::2]
        ))
        said = [halves[number % 2].said[number // 2] for number in range(len(asks))]
        return Burst(max(half.seconds for half in halves), said)

    def freeze(self) -> None:
        for engine in self._engines:
            engine.freeze()

    def thaw(self) -> None:
        for engine in self._engines:
            engine.thaw()

    async def stop(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self._engines))


class Generate(Process):
    """`model.generate` in a static batch; with adapters, PEFT's `adapter_names`."""

    def __init__(self, wanted: Wanted, bench: Bench, port: int):
        paths = [str(adapter_folder(bench.folder, wanted.base, name)) for name in wanted.adapters]
        folder = str(base_folder(bench.folder, wanted.base))
        command = [sys.executable, "-m", "bench.serve.child", folder, *paths, "--threads", str(bench.threads), *wanted.options]
        log = bench.folder / "logs" / f"{wanted.label.replace(' ', '-')}.log"
        super().__init__(wanted.label, command, bench.environment(), log, piped=True)

    async def ready(self) -> None:
        await self._line()
        self.seconds_to_ready = time.perf_counter() - self.started_at

    async def burst(self, asks: list[Ask]) -> Burst:
        most = max(ask.max_tokens for ask in asks)
        names = [ask.adapter for ask in asks] if asks[0].adapter is not None else None
        line = json.dumps({"prompts": [ask.prompt for ask in asks], "max_tokens": most, "adapters": names})
        assert self.child.stdin is not None
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()
        made = await self._line()
        # A static batch goes on to its longest; only what was asked for counts.
        tokens = [row[: ask.max_tokens] for row, ask in zip(made["tokens"], asks, strict=True)]
        return Burst(made["seconds"], [Said(len(row), tuple(row), "") for row in tokens])

    async def _line(self) -> Json:
        assert self.child.stdout is not None
        line = await asyncio.to_thread(self.child.stdout.readline)
        if not line:
            raise PeerFailed(f"{self.label} ended: {self.last_words()}")
        return dict(json.loads(line))


# -- command lines ----------------------------------------------------------------------------------------------------------

Command = tuple[list[str], dict[str, str], str]
"""Command line, environment, name of the base in a request."""


def _ours(wanted: Wanted, bench: Bench, port: int) -> Command:
    base = base_id(bench.folder, wanted.base)
    command = [sys.executable, "-m", "tunesmith.engine", "--base", base, "--port", str(port), "--threads", str(bench.threads)]
    quantize = [] if wanted.quantize == "none" else ["--quantize", wanted.quantize]
    return [*command, *quantize, *wanted.options], bench.environment(), base


def _transformers(wanted: Wanted, bench: Bench, port: int) -> Command:
    """Small blocks and few tokens a batch: with its defaults it takes 60 % of the memory and is ten times slower on a CPU."""
    folder = str(base_folder(bench.folder, wanted.base).absolute())
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", folder, "--continuous-batching", "--device", "cpu",
        "--dtype", "float32", "--attn-implementation", "sdpa", "--cb-block-size", "32", "--cb-num-blocks", "256",
        "--cb-max-batch-tokens", "256", "--host", "127.0.0.1", "--port", str(port),
    ]
    return command, bench.environment() | {"OMP_NUM_THREADS": str(bench.threads)}, folder


def _vllm(wanted: Wanted, bench: Bench, port: int) -> Command:
    """Prefix caching is on, as it is in ours; prompts are never asked twice unless the measurement says so."""
    if bench.vllm_python is None or not bench.vllm_python.exists():
        raise PeerFailed("vLLM is not installed: give --vllm-python")
    command = [
        str(bench.vllm_python), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(base_folder(bench.folder, wanted.base).absolute()), "--served-model-name", wanted.base,
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
        "--max-model-len", str(CONTEXT), "--max-num-seqs", str(AT_ONCE), "--disable-uvicorn-access-log",
    ]
    if wanted.adapters:
        rank = "64" if any(name.startswith("r64") for name in wanted.adapters) else "16"
        command += ["--enable-lora", "--max-loras", "4", "--max-cpu-loras", "8", "--max-lora-rank", rank]
    home = bench.vllm_python.absolute().parent
    threads = f"0-{bench.threads - 1}"
    environment = bench.environment() | {
        "PATH": f"{home}:{os.environ['PATH']}", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": threads, "VLLM_NO_USAGE_STATS": "1",
    }
    if bench.vllm_preload is not None:
        environment["LD_PRELOAD"] = str(bench.vllm_preload)
    return [*command, *wanted.options], environment, wanted.base


COMMANDS = {"ours": _ours, "transformers serve": _transformers, "vllm": _vllm}
TWO_REPLICAS = "ours, 2 replicas"
Peer = Http | Replicas | Generate
PEERS: dict[str, Callable[[Wanted, Bench, int], Peer]] = {"generate": Generate, TWO_REPLICAS: Replicas}
"""All others are servers of their own."""


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


class Pool:
    """The peers that live: started when first asked for; one runs, the others are frozen."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self._peers: dict[Wanted, Peer] = {}
        self._failed: dict[Wanted, PeerFailed] = {}

    async def awake(self, wanted: Wanted) -> Peer:
        """The peer, running, all others frozen. Raises PeerFailed, each time again for one that did not start."""
        if wanted in self._failed:
            raise self._failed[wanted]
        for other, peer in self._peers.items():
            if other != wanted:
                peer.freeze()
        if wanted not in self._peers:
            await self._start(wanted)
        self._peers[wanted].thaw()
        return self._peers[wanted]

    async def _start(self, wanted: Wanted) -> None:
        print(f"  starting {wanted.label} ...", file=sys.stderr, flush=True)
        (self.bench.folder / "logs").mkdir(parents=True, exist_ok=True)
        try:
            peer = PEERS.get(wanted.kind, Http)(wanted, self.bench, free_port())
            self._peers[wanted] = peer
            await peer.ready()
        except PeerFailed as error:
            self._failed[wanted] = error
            if wanted in self._peers:
                await self._peers.pop(wanted).stop()
            raise

    async def keep_base(self, base: str | None) -> None:
        """Stops the peers of other bases."""
        await self._stop([wanted for wanted in self._peers if wanted.base != base])

    async def drop(self) -> None:
        await self._stop(list(self._peers))

    async def _stop(self, those: list[Wanted]) -> None:
        await asyncio.gather(*(self._peers.pop(wanted).stop() for wanted in those))
