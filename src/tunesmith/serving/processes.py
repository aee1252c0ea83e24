"""The only place that starts an engine: by name, as a child with a key that lives as long as it does.

The child holds the other end of its stdin: when this process ends, however it ends, the child reads the end of it and goes. Ours
does so by itself; a foreign one runs under `guard.py`.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from tunesmith.serving import guard
from tunesmith.types import Quantization

STOP_SECONDS = 5.0
"""How long an engine may take to go before it is killed."""
FOREIGN_SECONDS = 10.0
"""How long one that is not ours may take to clear up after SIGTERM. Ours goes at once when its stdin ends."""
KEY_VARIABLE = "TUNESMITH_ENGINE_KEY"


@dataclass(frozen=True)
class EngineOrder:
    """What to start."""

    base: str
    quantization: Quantization
    models_dir: Path | None
    """Where bases other than the built-in one lie."""
    threads: int
    """0 means all cores."""
    log: Path
    """What the engine prints goes there."""
    quantize: Literal["none", "int8"] = "none"
    """Weights of the linear layers are kept in int8 as well, for speed on a CPU."""


class Child(Protocol):
    """A process of ours: a `subprocess.Popen`, as far as it is needed here."""

    pid: int

    @property
    def stdin(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


Run = Callable[[list[str], Path, Mapping[str, str]], Child]
"""Starts an engine of ours: its arguments, where it prints to, what is added to its environment."""


class EngineProcess:
    """A running engine."""

    def __init__(self, child: Child, folder: Path, key: str, log: Path, grace_seconds: float = 0.0):
        self._child = child
        self._grace_seconds = grace_seconds
        self._folder = folder
        self._log = log
        self.socket = folder / "engine.sock"
        self.key = key

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def describe_end(self) -> str:
        """Why it ended, with the last line that it printed."""
        code = self._child.poll()
        why = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return f"{why}: {lines[-1][:300]}" if lines else why

    async def stop(self) -> None:
        """Ends the engine, and leaves nothing of it. Its answers have been waited for, or are not wanted any more."""
        if self.is_alive and self._grace_seconds:
            self._child.terminate()
            await self._wait(self._grace_seconds)
        if self._child.stdin is not None:
            self._child.stdin.close()
        if not await self._wait(STOP_SECONDS):
            self._child.kill()
            await asyncio.to_thread(self._child.wait)
        with suppress(ProcessLookupError):  # what it started, and left behind when it was killed
            os.killpg(self._child.pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _wait(self, seconds: float) -> bool:
        try:
            await asyncio.to_thread(self._child.wait, seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def run_by_name(arguments: list[str], log: Path, environment: Mapping[str, str]) -> Child:
    """A `Run`: the usual one."""
    return _run([sys.executable, "-m", "tunesmith.engine", *arguments], log, environment)


def start_engine(order: EngineOrder, run: Run = run_by_name) -> EngineProcess:
    """Starts the engine and returns at once; it answers on its socket at once too, and computes some seconds later."""
    # Not in the data directory: the path of a Unix socket may have about a hundred bytes.
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-engine-"))
    arguments = [
        "--base", order.base, "--quantization", order.quantization,
        *(["--models-dir", str(order.models_dir)] if order.models_dir is not None else []),
        "--threads", str(order.threads), "--socket", str(folder / "engine.sock"), "--die-with-parent",
        *(["--quantize", order.quantize] if order.quantize != "none" else []),
    ]
    key = new_key()
    return EngineProcess(run(arguments, order.log, {KEY_VARIABLE: key}), folder, key, order.log)


def start_foreign(command: list[str], log: Path, environment: Mapping[str, str], key: str) -> EngineProcess:
    """Starts an engine that is not ours, under the guard."""
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-engine-"))
    guarded = [sys.executable, "-I", "-S", guard.__file__, *command]
    return EngineProcess(_run(guarded, log, environment), folder, key, log, FOREIGN_SECONDS)


def new_key() -> str:
    return secrets.token_hex(16)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str], log: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log, "wb") as output:
        # A session of its own: Ctrl-C in the terminal is for the desk, which then stops the engine.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, **environment},
        )
