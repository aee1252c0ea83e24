"""Processes that have imported what the product's programs import, and fork one for each that a test starts.

    python zygote.py SOCKET OWNER_PID

One for each program, started by the first child that needs it, gone with the pytest that made the folder. It computes nothing
itself and has no threads: a fork of it is what a fresh process is after its imports. `sitecustomize.py` says who comes here.
"""

import array
import fcntl
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress

FOLDER, OWNER = "TUNESMITH_TEST_ZYGOTES", "TUNESMITH_TEST_OWNER"
"""Variables: where the zygotes' sockets lie, and the pytest with which they go."""
IMPORTS = {
    "tunesmith": ("tunesmith.cli.main", "tunesmith.cli.desk", "tunesmith.db.migrate", "tunesmith.db.keys", "rich.progress"),
    "tunesmith serve": (
        "tunesmith.cli.main", "tunesmith.cli.serve", "tunesmith.api.app", "tunesmith.api.logs", "uvicorn",
        "uvicorn.protocols.http.httptools_impl", "uvicorn.loops.uvloop", "uvicorn.lifespan.on",
    ),
    "tunesmith.engine": ("tunesmith.engine.process",),
    "tunesmith.worker": ("tunesmith.worker", "tunesmith.train.methods", "tunesmith.batches.run", "tunesmith.evals.run"),
}  # fmt: skip
"""Program -> what its zygote imports. Only the last two load torch."""
LISTEN_SECONDS = 60.0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
MAX_REQUEST = 1 << 20


# -- pytest ------------------------------------------------------------------------------------------------------------------


def offer() -> Callable[[], None]:
    """Lets what this process starts from now on come here, and what that starts; ends the offer when called. pytest's own
    workers take part in the offer of the one that started them. With the variable set to nothing, all start as they would."""
    if FOLDER in os.environ or not sys.platform.startswith("linux"):
        return lambda: None
    folder = tempfile.mkdtemp(prefix="tunesmith-warm-")
    before = os.environ.get("PYTHONPATH")
    os.environ[FOLDER], os.environ[OWNER] = folder, str(os.getpid())
    os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *([before] if before else [])])

    def end() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return end


# -- the child that stands in ---------------------------------------------------------------------------------------------


def stand_in(folder: str, program: str, arguments: list[str]) -> None:
    """Ends as what was forked ended. Returns where there is no zygote, so that the child starts as it would have."""
    line = connect(folder, program)
    if line is None:
        return
    request = json.dumps({
        "arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "umask": current_umask(),
    }).encode()  # fmt: skip
    with line, suppress(OSError):
        files = array.array("i", [0, 1, 2])
        line.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        line.sendall(request)
        reading = line.makefile("r")
        pid = int(reading.readline() or 0)
        if pid == 0:  # it could not import, as this child will not either, and say why
            return
        for number in FORWARDED:
            signal.signal(number, lambda number, _: _send(pid, number))
        status = int(reading.readline() or 1 << 8)
        if os.WIFSIGNALED(status):
            if os.WTERMSIG(status) in FORWARDED:
                signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
            os.kill(os.getpid(), os.WTERMSIG(status))
        os._exit(os.WEXITSTATUS(status))


def current_umask() -> int:
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def connect(folder: str, program: str) -> socket.socket | None:
    """A line to the zygote of this program, which the first who asks starts; None where it has ended."""
    path = os.path.join(folder, program)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")}
            with open(f"{path}.log", "w") as log:
                subprocess.Popen(
                    [sys.executable, __file__, path, os.environ[OWNER]], cwd="/", stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, env=environment, start_new_session=True,
                )
            until = time.monotonic() + LISTEN_SECONDS
            while not os.path.exists(path) and time.monotonic() < until:
                time.sleep(0.01)
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(path)
    except OSError:
        line.close()
        return None
    return line


# -- the zygote -----------------------------------------------------------------------------------------------------------


def main() -> None:
    path, owner = sys.argv[1:]
    program = os.path.basename(path)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen(128)
    os.rename(f"{path}.new", path)  # who comes now waits for the imports
    if program == "tunesmith.worker":
        os.environ.update(importlib.import_module("tunesmith.worker").QUIET)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in IMPORTS[program]:
        importlib.import_module(name)
    serve(listening, program.partition(" ")[0], os.pidfd_open(int(owner)))


def serve(listening: socket.socket, module: str, owner: int) -> None:
    """Forks one after the other; returns in a fork, as the program that was asked for, and when the owner is gone."""
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(owner, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is owner:
                for pid in {each.data[0] for each in selector.get_map().values() if each.data}:
                    _send_group(pid)  # what a test left running
                return
            if key.fileobj is listening:
                line, _ = listening.accept()
                asked = receive(line)
                if asked is None:
                    line.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    for open_file in [each.fd for each in selector.get_map().values()]:
                        os.close(open_file)
                    line.close()
                    selector.close()
                    return become(module, *asked)
                for number in asked[1]:
                    os.close(number)
                line.sendall(b"%d\n" % pid)
                child = os.pidfd_open(pid)
                selector.register(line, selectors.EVENT_READ, (pid, child, line))
                selector.register(child, selectors.EVENT_READ, (pid, child, line))
            else:
                pid, child, line = key.data
                if key.fileobj is line:  # the one that stood in for it is gone
                    _send_group(pid)
                _, status = os.waitpid(pid, 0)
                selector.unregister(line)
                selector.unregister(child)
                os.close(child)
                with suppress(OSError):
                    line.sendall(b"%d\n" % status)
                line.close()
                break  # what else was selected may belong to what was just closed


def _send_group(pid: int) -> None:
    """Kills what was forked and what it started; before its setsid there is only itself."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def receive(line: socket.socket) -> "tuple[dict, list[int]] | None":
    """What was asked, and the three files; None when the asker has gone meanwhile."""
    head, files, _, _ = socket.recv_fds(line, 4, 3)
    data, size = b"", int.from_bytes(head, "big")
    while len(data) < size:
        more = line.recv(min(MAX_REQUEST, size - len(data)))
        if not more:
            break
        data += more
    if len(head) < 4 or len(data) < size:
        for number in files:
            os.close(number)
        return None
    return json.loads(data), files


def become(module: str, asked: dict, files: list[int]) -> None:
    """In the fork: the process that was asked for, from its first line to its end."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    os.umask(asked["umask"])
    sys.argv = [module, *asked["arguments"]]
    sys.path[:] = [asked["folder"], *(each for each in sys.path if each != os.path.dirname(__file__))]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
