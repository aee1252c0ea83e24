"""Starts a worker as a child that dies with this process, and ends it with all that it started. Knows no jobs.

PR_SET_PDEATHSIG fires when the *thread* that started the child ends, so a worker is started from a thread that outlives it.
It is set by a tiny program that then becomes the worker: Python between fork and exec is not safe when other threads run.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tunesmith.runfolder import INTERRUPTED

PR_SET_PDEATHSIG = 1
BECOME = (
    "import ctypes, os, sys\n"
    f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)
TERM_SECONDS = 5.0


def start_worker(
    folder: Path, attempt: int, models_dir: Path, log: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """`python -m tunesmith.worker` on a run folder, in a process group of its own; what it prints goes to `log`.

    `environment` is added to this process's own.
    """
    worker = ["-m", "tunesmith.worker", str(folder), "--attempt", str(attempt), "--models-dir", str(models_dir)]
    command = [sys.executable, "-I", "-S", "-c", BECOME, str(os.getpid()), sys.executable, *worker]
    if not sys.platform.startswith("linux"):
        command = [sys.executable, *worker]
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log, "ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=os.environ | (environment or {}),
        )


def end(child: subprocess.Popen[bytes]) -> None:
    """Asks the child to end, then makes it; nothing of its group is left."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(TERM_SECONDS)
    sweep(child)


def sweep(child: subprocess.Popen[bytes]) -> None:
    """Kills what is left of the child's group, and reaps the child."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def was_interrupted(returncode: int) -> bool:
    """Did the worker leave because it or its machine is taken away, its work saved? SIGTERM may meet it before it listens."""
    return returncode in {INTERRUPTED, -signal.SIGTERM}


def describe(returncode: int, log: Path) -> str:
    """Why a child ended, in words, with the last line that it printed."""
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"exit status {returncode}" + (f" ({lines[-1][:200]})" if lines else "")


def identity() -> str:
    """Names this process across reboots and reused process ids: host, pid, and when it started."""
    return f"{os.uname().nodename}:{os.getpid()}:{_start_time(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Is the process that called itself `owner` running? True too when it is on another host, where nobody here can tell."""
    host, pid, started = owner.rsplit(":", 2)
    return host != os.uname().nodename or _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    """Clock ticks from boot to the process's start; empty when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
