"""Blobs come back byte for byte, once for each content, from disk and from S3 alike; what failed leaves nothing."""

import os
import random

import pytest

from tunesmith.errors import Busy, InvalidRequest, NotFound
from tunesmith.store import BlobStore, open_store

DATA = random.Random(7).randbytes(5_000_003)


@pytest.fixture(params=["disk", "s3"])
def store(request, tmp_path):
    return open_store(tmp_path / "blobs", request.getfixturevalue("s3") if request.param == "s3" else None)


def chunked(data, size=100_000):
    return (data[start : start + size] for start in range(0, len(data), size))


def test_what_was_put_comes_back_and_the_same_bytes_are_one_blob(store, tmp_path):
    blob = store.put(chunked(DATA))
    assert (blob, blob.num_bytes) == (store.put([DATA]), len(DATA))
    assert b"".join(store.chunks(blob.sha256)) == store.read(blob.sha256) == DATA
    store.fetch(blob.sha256, tmp_path / "local.jsonl")
    assert (tmp_path / "local.jsonl").read_bytes() == DATA
    assert list(store.list_old(-60)) == [blob.sha256]
    assert list(store.list_old(3600)) == []
    store.check(blob.sha256)
    store.delete(blob.sha256)
    assert (tmp_path / "local.jsonl").read_bytes() == DATA


def test_an_empty_blob_is_one_too(store):
    assert store.read(store.put([]).sha256) == b""


def test_what_is_not_there_is_not_found(store, tmp_path):
    sha256 = "0" * 64
    store.delete(sha256)
    for ask in (store.check, store.chunks, store.read, lambda name: store.fetch(name, tmp_path / "x")):
        with pytest.raises(NotFound, match="not in the store"):
            ask(sha256)
    assert list(tmp_path.glob("*x*")) == []


def test_what_failed_leaves_nothing(store, tmp_path):
    def torn():
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.put(torn())
    with pytest.raises(InvalidRequest, match="larger than 10 bytes") as caught:
        store.put(chunked(DATA), max_bytes=10, param="data")
    assert caught.value.param == "data"
    assert list(store.list_old(-60)) == []
    assert list(store.root.iterdir()) == []


def test_what_a_kill_left_half_done_is_cleared_when_it_is_old(store):
    store.put([b"whole"])
    half = store.root / ".half.new"
    half.write_bytes(b"half")
    assert store.clear(3600) == 0
    os.utime(half, (1, 1))
    assert store.clear(3600) == 1
    assert not half.exists()


def test_on_disk_a_fetched_file_costs_no_space(tmp_path):
    store = BlobStore(tmp_path / "blobs")
    blob = store.put([b"rows"])
    store.fetch(blob.sha256, tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").stat().st_nlink == 2


@pytest.mark.parametrize("url", ["s3://no-such-bucket/x", "s3://", "gs://bucket"])
def test_storage_that_is_not_there_is_said_at_the_start(s3, tmp_path, url):
    with pytest.raises(InvalidRequest) as caught:
        open_store(tmp_path, url)
    assert caught.value.param == "store"


def test_storage_that_does_not_answer_is_worth_another_try(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Busy, match="does not answer"):
        open_store(tmp_path, s3)
