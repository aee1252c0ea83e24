"""An engine's process made of one that has imported torch already: forked early, it waits until it is told what to serve.

A start by name imports for seconds, which a run that proves its adapter at the end has done once before. The child has its
parent's imports and nothing else of it: it is made before the parent computes, for neither OpenMP's threads nor a GPU's context
survive a fork. From then on it is an engine like any other: it reads base and adapter from disk, and is asked over HTTP.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn

from tunesmith.engine.__main__ import main
from tunesmith.errors import EngineFailed

POLL_SECONDS = 0.01
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""There with a GPU's driver; asking torch would begin to use the GPU, and nobody could fork any more."""


def can_fork() -> bool:
    """Not beside a GPU, whose driver does not survive it, and not on systems whose libraries do not."""
    return sys.platform == "linux" and not any(path.exists() for path in GPU_DEVICES)


class Forked:
    """The child, with as much of `subprocess.Popen` as it takes to see how it fares and to end it."""

    def __init__(self, pid: int, stdin: IO[bytes]):
        self.pid = pid
        self.stdin = stdin
        self._code: int | None = None
        self._is_told = False

    @classmethod
    def make(cls) -> "Forked":
        """A child that waits. It goes when this process does."""
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            _wait_and_serve(read_end)
        os.close(read_end)
        return cls(pid, open(write_end, "wb", buffering=0))

    def serve(self, arguments: list[str], log: Path, environment: Mapping[str, str]) -> "Forked":
        """Makes an engine of it: `arguments` are those of `python -m tunesmith.engine`. Raises EngineFailed the second time."""
        if self._is_told:
            raise EngineFailed("The engine that was forked for this has ended.")
        self._is_told = True
        told = {"arguments": arguments, "log": str(log), "environment": dict(environment)}
        self.stdin.write(json.dumps(told).encode() + b"\n")
        return self

    def close(self) -> None:
        """Ends a child that nobody told anything; one that has ended is left alone.

        By a signal: another child that was forked since may hold the pipe open.
        """
        self.stdin.close()
        self.terminate()
        self.wait()

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("tunesmith.engine", timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _wait_and_serve(read_end: int) -> NoReturn:
    """In the child: the engine's own `main`, with the arguments that come through the pipe. Never returns."""
    code: object = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(read_end, 0)
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(0, 1)
            if not byte:
                os._exit(0)
            line += byte
        told = json.loads(line)
        log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(told["environment"])
        main(told["arguments"])
        code = 0
    except SystemExit as exit:
        code = exit.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
