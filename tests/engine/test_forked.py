"""An engine forked from a process that has imported torch: it serves like one that was started by name, and outlives nobody.

Each test forks from a fresh interpreter, for this one has computed before.
"""

import subprocess
import sys
import time
from pathlib import Path

SERVES = """
import asyncio, importlib, json, sys
from pathlib import Path
from tunesmith.engine.forked import Forked
importlib.import_module("tunesmith.engine.process")
from tunesmith.serving.client import Client
from tunesmith.serving.driven import Driven
from tunesmith.serving.embedded import Embedded
from tunesmith.serving.memory import Memory
from tunesmith.serving.processes import EngineOrder, start_engine

async def main():
    forked = Forked.make()
    order = EngineOrder("tunesmith/tiny", "none", None, 1, Path(sys.argv[1]))
    engine = Driven(Embedded(order, started=start_engine(order, forked.serve)), memory=Memory())
    try:
        answer = await engine.ask("/tokenize", {"model": "x", "prompt": "Repeat: sun"})
        print(json.dumps([forked.poll(), engine.pid == forked.pid, json.loads(await answer.read())["count"] > 0]))
    finally:
        await engine.stop()
    print(forked.poll() is not None)

asyncio.run(main())
"""

WAITS = """
import time
from tunesmith.engine.forked import Forked
idle, killed = Forked.make(), Forked.make()
idle.close()
print(idle.poll(), killed.pid, flush=True)
time.sleep(60)
"""


def test_it_serves_like_any_engine_and_ends_when_it_is_told(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SERVES, str(tmp_path / "log")], capture_output=True, text=True, check=False)
    assert done.stdout == "[null, true, true]\nTrue\n", done.stderr + (tmp_path / "log").read_text()


def test_one_that_waits_goes_when_it_is_closed_or_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        status, pid = parent.stdout.readline().split()
        assert status == "-15"
        parent.kill()
    deadline = time.monotonic() + 20
    while _runs(int(pid)):
        assert time.monotonic() < deadline, "it waits for nobody"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
