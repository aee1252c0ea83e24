"""A child that is forked from a zygote ends as one that was started afresh, and no sooner or later than what stands in for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm.zygote import FOLDER

pytestmark = pytest.mark.skipif(not os.environ.get(FOLDER), reason="there are no zygotes here, or they are turned off")


def tunesmith(*words, **environment):
    command = [sys.executable, "-m", "tunesmith", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.parametrize("words", [("--help",), ("no-such-verb",), ("keys", "list", "--data-dir", "not/there")])
def test_it_says_and_ends_as_a_fresh_process(words):
    forked, fresh = tunesmith(*words), tunesmith(*words, **{FOLDER: ""})
    assert (forked.returncode, forked.stdout, forked.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)



@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_what_stands_in_is_ended_what_was_forked_ends_too(number, tmp_path):
    """The engine holds its socket open while it lives; SIGTERM it hears itself, and ends well."""
    path = tmp_path / "engine.sock"
    child = subprocess.Popen([sys.executable, "-m", "tunesmith.engine", "--base", "tunesmith/tiny", "--socket", str(path)])
    while not path.exists():
        assert child.poll() is None
        time.sleep(0.02)
    holders = socket_holders(path)
    assert holders
    assert child.pid not in holders, "another process is the engine"
    child.send_signal(number)
    assert child.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    while any(is_running(pid) for pid in holders):
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def socket_holders(path: Path) -> set[int]:
    """The processes that have the listening socket open, found by its inode."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    (inode,) = {line.split()[6] for line in lines if line.endswith(str(path))}
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return found


def test_where_the_zygote_is_gone_a_child_starts_as_it_would(tmp_path):
    (tmp_path / "tunesmith").touch()
    assert tunesmith("--help", **{FOLDER: str(tmp_path)}).returncode == 0
