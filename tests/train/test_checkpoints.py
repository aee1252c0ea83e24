import resource
import signal
import subprocess
import sys

import pytest
import torch

from tunesmith.errors import CheckpointInvalid, StorageFull
from tunesmith.train.checkpoints import Checkpoint, folders, newest, read, write


def checkpoint(step):
    tensors = {"adapter": {"a": torch.full((3, 2), float(step))}, "rng": {"torch": torch.arange(5, dtype=torch.uint8)}}
    return Checkpoint(step, tensors, {"step": step, "loss": 0.1 + 0.2})


def names(root):
    return [folder.name for folder in folders(root)]


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    write(tmp_path, checkpoint(3), keep=2)
    found = read(tmp_path / "step-3")
    assert found.step == 3
    assert found.state == {"step": 3, "loss": 0.1 + 0.2}
    assert torch.equal(found.tensors["adapter"]["a"], torch.full((3, 2), 3.0))
    assert torch.equal(found.tensors["rng"]["torch"], torch.arange(5, dtype=torch.uint8))


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, checkpoint(step), keep=2)
    assert names(tmp_path) == ["step-10", "step-15"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-15"]


def test_steps_that_the_run_has_not_reached_again_are_deleted(tmp_path):
    for step in (10, 20):
        write(tmp_path, checkpoint(step), keep=2)
    write(tmp_path, checkpoint(12), keep=2)
    assert names(tmp_path) == ["step-10", "step-12"]


@pytest.mark.parametrize("name", ["adapter.safetensors", "rng.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip a bit", "cut", "delete"])
def test_a_torn_or_altered_checkpoint_is_skipped_and_told(tmp_path, name, harm):
    write(tmp_path, checkpoint(1), keep=3)
    path = write(tmp_path, checkpoint(2), keep=3) / name
    data = bytearray(path.read_bytes())
    if harm == "flip a bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    warnings = []
    found = newest(tmp_path, warnings.append)
    assert found is not None
    assert found.step == 1
    assert len(warnings) == 1
    assert "step-2" in warnings[0]


def test_a_folder_that_was_renamed_or_half_written_is_no_checkpoint(tmp_path):
    path = write(tmp_path, checkpoint(4), keep=2)
    path.rename(tmp_path / "step-9")
    with pytest.raises(CheckpointInvalid):
        read(tmp_path / "step-9")
    (tmp_path / ".step-11.part").mkdir()
    assert newest(tmp_path, lambda message: None) is None


def test_a_manifest_cannot_name_a_file_outside(tmp_path):
    path = write(tmp_path, checkpoint(4), keep=2)
    manifest = (path / "manifest.json").read_text().replace('"state.json"', '"../state.json"')
    (path / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointInvalid, match="outside"):
        read(path)


def test_no_pickle_is_ever_written(tmp_path):
    path = write(tmp_path, checkpoint(4), keep=2)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_a_full_disk_leaves_the_older_checkpoint_whole(tmp_path):
    write(tmp_path, checkpoint(1), keep=1)
    big = Checkpoint(2, {"adapter": {"a": torch.zeros(100_000)}}, {})
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old_limit[1]))
    try:
        with pytest.raises(StorageFull):
            write(tmp_path, big, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1"]
    assert read(tmp_path / "step-1").step == 1


KILLED = """
import os, sys
from pathlib import Path
import torch
from tunesmith.train import checkpoints
from tunesmith.train.checkpoints import Checkpoint, newest, write

def checkpoint(step):
    return Checkpoint(step, {"adapter": {"a": torch.ones(64)}}, {})

def write_and_die(root, die_at):
    calls = 0
    def dying(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == die_at:
                os.kill(os.getpid(), 9)
            return real(*args, **kwargs)
        return call
    write(root, checkpoint(1), keep=1)
    os.fsync, os.replace = dying(os.fsync), dying(os.replace)
    checkpoints._write_durably = dying(checkpoints._write_durably)
    checkpoints.shutil.rmtree = dying(checkpoints.shutil.rmtree)
    write(root, checkpoint(2), keep=1)

for die_at in range(1, 40):
    root = Path(sys.argv[1]) / str(die_at)
    child = os.fork()
    if child == 0:
        write_and_die(root, die_at)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -9), status
    found = newest(root, print)
    assert found is not None and found.step in (1, 2), found
    if status == 0:
        assert found.step == 2
        print("survived", die_at - 1, "kills")
        sys.exit()
sys.exit("no run got through")
"""


def test_a_kill_at_any_action_leaves_a_checkpoint_that_is_whole(tmp_path):
    """The k-th durable action kills the process, for every k, until a run gets through."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[1]) >= 8
