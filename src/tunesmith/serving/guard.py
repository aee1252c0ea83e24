"""Runs a program that knows nothing of its parent, and ends all of it when the parent is gone. Run as a script; knows no engine.

    python -I -S guard.py PROGRAM ARGUMENT ...

Started as the head of a process group, it shares it with the program and all that the program starts. The parent holds the other
end of stdin: when stdin ends, the whole group is killed, the guard too. SIGTERM is for the program only, so that it can end what
it has begun. What it leaves behind is told to end; the parent kills what then is left of the group (`EngineProcess.stop`).
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)  # no other thread runs yet
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_watch, daemon=True).start()
    code = child.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
