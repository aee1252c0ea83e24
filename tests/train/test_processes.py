"""Several processes that share each step: the losses of one process, and on resume those of a run that went straight."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from tunesmith.runfolder import read_events
from tunesmith.train import processes

from .small import make_folder

pytestmark = pytest.mark.slow

COMMON = {"adapter": {"dropout": 0.0}, "evaluation": {"verify": False}, "method": {"batch_size": 5, "epochs": 2}}
"""5 rows a step: one of two processes has a row more than the other."""


def work(folder, attempt=1):
    folder.order("run", attempt)
    command = [sys.executable, "-m", "tunesmith.worker", str(folder.root), "--attempt", str(attempt)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})


def steps(folder, attempt=1):
    return [event for event in read_events(folder.events_file(attempt)).events if event["type"] == "step"]


def losses(found):
    return [step["loss"] for step in found]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("alone") / "run", **COMMON)
    assert work(folder).wait(240) == 0
    return folder


def two(path):
    return make_folder(path, **COMMON, compute={"processes": 2, "packing_length": 96})


def adapter(folder):
    return load_file(folder.artifacts / "adapter" / "adapter_model.safetensors")


def test_two_processes_make_the_steps_of_one(tmp_path, alone):
    folder = two(tmp_path / "run")
    assert work(folder).wait(240) == 0
    mine, theirs = steps(folder), steps(alone)
    assert [step["step"] for step in mine] == [step["step"] for step in theirs]
    assert losses(mine)[0] == pytest.approx(losses(theirs)[0], rel=1e-6)
    assert losses(mine) == pytest.approx(losses(theirs), rel=1e-4)
    assert [step["token_accuracy"] for step in mine] == pytest.approx([step["token_accuracy"] for step in theirs], abs=0.02)
    assert folder.result()["trained_tokens"] == alone.result()["trained_tokens"]


@pytest.mark.long
def test_two_processes_that_were_killed_end_as_those_that_were_not(tmp_path):
    whole, killed = two(tmp_path / "whole"), two(tmp_path / "killed")
    assert work(whole).wait(240) == 0
    worker = work(killed)
    while not (killed.checkpoints / "step-2").exists():
        assert worker.poll() is None
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert work(killed, attempt=2).wait(240) == 0
    straight = {step["step"]: step["loss"] for step in steps(whole)}
    assert {step["step"]: step["loss"] for step in steps(killed, 2)}.items() <= straight.items()
    assert killed.result()["metrics"] == whole.result()["metrics"]
    mine, theirs = adapter(killed), adapter(whole)
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def test_a_run_with_several_processes_leaves_none_behind(tmp_path):
    folder = two(tmp_path / "run")
    worker = work(folder)
    children = []
    while not children:
        assert worker.poll() is None
        asked = ["pgrep", "-f", f"tunesmith.train.follower {folder.root}"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        children = [int(pid) for pid in found.stdout.split()]
        time.sleep(0.1)
    worker.kill()
    worker.wait()
    until = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}/environ") and _runs(pid) for pid in children):
        assert time.monotonic() < until
        time.sleep(0.1)


def _runs(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_process_that_others_started_is_refused(tmp_path):
    folder = two(tmp_path / "run")
    command = [sys.executable, "-m", "tunesmith.worker", str(folder.root), "--attempt", "1"]
    told = subprocess.run(command, env=os.environ | {"WORLD_SIZE": "2", "RANK": "0"}, check=False, capture_output=True, text=True)
    assert told.returncode == 1
    assert "torchrun" in json.dumps(read_events(folder.events_file(1)).events[-1])


@pytest.mark.parametrize(("count", "size"), [(1, 2), (2, 2), (3, 2), (5, 3)])
def test_every_batch_counts_once_and_all_have_as_many(monkeypatch, count, size):
    monkeypatch.setenv("WORLD_SIZE", str(size))
    counted, lengths = [], set()
    for rank in range(size):
        monkeypatch.setenv("RANK", str(rank))
        mine, num = processes.share(list(range(count)))
        counted += mine[:num]
        lengths.add(len(mine))
    assert sorted(counted) == list(range(count))
    assert len(lengths) == 1
