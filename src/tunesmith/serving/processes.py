"""The only place that starts an engine: by name, as a child on a Unix socket, with a key that lives as long as it does.

The child holds the other end of its stdin: when this process ends, however it ends, the child reads the end of it and goes.
"""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tunesmith.types import Quantization

STOP_SECONDS = 5.0
"""How long an engine may take to go before it is killed."""
KEY_VARIABLE = "TUNESMITH_ENGINE_KEY"


@dataclass(frozen=True)
class EngineOrder:
    """What to start."""

    base: str
    quantization: Quantization
    models_dir: Path
    threads: int
    """0 means all cores."""
    log: Path
    """What the engine prints goes there."""


class EngineProcess:
    """A running engine."""

    def __init__(self, child: "subprocess.Popen[bytes]", folder: Path, key: str, log: Path):
        self._child = child
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
        """Ends the engine, and leaves nothing of it."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            await asyncio.to_thread(self._child.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            await asyncio.to_thread(self._child.wait)
        shutil.rmtree(self._folder, ignore_errors=True)


def start_engine(order: EngineOrder) -> EngineProcess:
    """Starts the engine and returns at once; it answers on its socket some seconds later."""
    # Not in the data directory: the path of a Unix socket may have about a hundred bytes.
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-engine-"))
    key = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "tunesmith.engine",
        "--base", order.base, "--quantization", order.quantization, "--models-dir", str(order.models_dir),
        "--threads", str(order.threads), "--socket", str(folder / "engine.sock"), "--die-with-parent",
    ]
    order.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(order.log, "wb") as log:
        # A session of its own: Ctrl-C in the terminal is for the desk, which then stops the engine.
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, KEY_VARIABLE: key},
        )
    return EngineProcess(child, folder, key, order.log)
