"""Runs a program that knows nothing of its parent, and ends all of it when the parent is gone. Run as a script; knows no engine.

    python -I -S guard.py PROGRAM ARGUMENT ...

The parent holds the other end of stdin. When stdin ends, the program's whole process group is killed; SIGTERM is passed on, so
that the program can end what it has begun. What the program leaves behind when it ends is killed too.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_become)  # no other thread runs yet
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_watch, args=(child.pid,), daemon=True).start()
    code = child.wait()
    _kill(child.pid)
    return code if code >= 0 else 128 - code


def _become() -> None:
    """A group of its own, which dies even if this guard is killed."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _watch(group: int) -> None:
    while os.read(0, 4096):
        pass
    _kill(group)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
