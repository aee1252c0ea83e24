"""Checkpoints are copied to S3 as they are made, a folder that has none goes on from there, storage that fails stops nothing."""

import json
import threading

import pytest
import torch

from tunesmith.errors import Busy
from tunesmith.store import open_folder
from tunesmith.train import checkpoints
from tunesmith.train.checkpoints import Checkpoint, newest, write
from tunesmith.train.sync import Sync, fetch_newest

FILES = ["adapter.safetensors", "manifest.json", "state.json"]


def checkpoint(step):
    return Checkpoint(step, {"adapter": {"a": torch.full((3, 2), float(step))}}, {"step": step})


@pytest.fixture
def there(s3):
    return open_folder(f"{s3}/run")


def copied(root, there, steps, keep=2, warn=None):
    sync = Sync(there, root, keep=keep, warn=warn or pytest.fail)
    for step in steps:
        sync.offer(write(root, checkpoint(step), keep=1))
        sync.close(60)
        sync = Sync(there, root, keep=keep, warn=warn or pytest.fail)
    sync.close(60)


def test_the_newest_two_are_there_and_the_newest_comes_back_bit_for_bit(tmp_path, there):
    copied(tmp_path / "one", there, [2, 4, 6])
    assert sorted(there.names()) == [f"step-{step}/{name}" for step in (4, 6) for name in FILES]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["step-6"]
    (tmp_path / "two").mkdir()
    fetch_newest(there, tmp_path / "two", pytest.fail)
    found = newest(tmp_path / "two", pytest.fail)
    assert (found.step, found.state) == (6, {"step": 6})
    assert torch.equal(found.tensors["adapter"]["a"], torch.full((3, 2), 6.0))
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["step-6"]


class Slow:
    """The storage, whose uploads wait until they may go on."""

    def __init__(self, there):
        self.there, self.may_go, self.asked = there, threading.Event(), []

    def upload(self, path, name):
        self.asked.append(name)
        assert self.may_go.wait(60)
        self.there.upload(path, name)

    def names(self):
        return self.there.names()

    def delete(self, name):
        self.there.delete(name)


def test_it_is_copied_in_the_background_manifest_last_after_the_run_has_deleted_it(tmp_path, there):
    slow = Slow(there)
    sync = Sync(slow, tmp_path, keep=2, warn=pytest.fail)
    sync.offer(write(tmp_path, checkpoint(1), keep=1))
    while not slow.asked:
        pass
    for step in (2, 3):
        sync.offer(write(tmp_path, checkpoint(step), keep=1))
    assert not (tmp_path / "step-1").exists()
    assert there.names() == []
    slow.may_go.set()
    sync.close(60)
    assert slow.asked == [f"step-{s}/{name}" for s in (1, 3) for name in ("adapter.safetensors", "state.json", "manifest.json")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-3"]


@pytest.mark.parametrize("harm", ["no manifest", "another file", "a missing file", "a manifest of elsewhere", "no JSON"])
def test_a_torn_or_altered_copy_is_skipped_and_told(tmp_path, there, harm):
    copied(tmp_path / "one", there, [1, 2])
    other = tmp_path / "other"
    if harm == "no manifest":
        there.delete("step-2/manifest.json")
    elif harm == "a missing file":
        there.delete("step-2/adapter.safetensors")
    elif harm == "another file":
        there.upload(tmp_path / "one" / "step-2" / "state.json", "step-2/adapter.safetensors")
    else:
        text = json.dumps({"format": 1, "step": 2, "sha256": {"../state.json": "0" * 64}})
        other.write_text(text if harm == "a manifest of elsewhere" else "<html>")
        there.upload(other, "step-2/manifest.json")
    (tmp_path / "two").mkdir()
    told = []
    fetch_newest(there, tmp_path / "two", told.append)
    assert newest(tmp_path / "two", pytest.fail).step == 1
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["step-1"]
    assert len(told) == (0 if harm == "no manifest" else 1)


def test_a_bucket_that_is_not_there_is_a_warning(tmp_path, s3):
    nowhere, told = open_folder("s3://no-such-bucket/run"), []
    copied(tmp_path, nowhere, [1, 2], warn=told.append)
    assert len(told) == 2
    assert "not copied" in told[0]
    with pytest.raises(Busy):
        nowhere.names()
    fetch_newest(nowhere, tmp_path, told.append)
    assert "No checkpoint was fetched" in told[-1]
    assert [path.name for path in checkpoints.folders(tmp_path)] == ["step-2"]


def test_an_upload_that_never_ends_is_not_waited_for_longer_than_told(tmp_path, there):
    slow, told = Slow(there), []
    sync = Sync(slow, tmp_path, keep=2, warn=told.append)
    sync.offer(write(tmp_path, checkpoint(1), keep=1))
    sync.close(0.1)
    assert "not there after" in told[0]
    slow.may_go.set()
