"""Each mistake gets one clear answer in OpenAI's shape, and loses nothing."""

import io
import socket
import subprocess
import sys

import openai
import pytest
from conftest import run

from tunesmith.paths import SUPPORT_DESK


def upload(client, text: str, name="rows.jsonl"):
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose="fine-tune")


def finished(client, job):
    import time

    while job.status not in {"succeeded", "failed", "cancelled"}:
        time.sleep(0.3)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def test_a_malformed_row_fails_the_job_with_its_line_and_reason(server):
    client = server.client()
    good = (SUPPORT_DESK / "train.jsonl").read_text().splitlines()[:12]
    file = upload(client, "\n".join([*good[:5], '{"messages": [{"role": "user"}]}', *good[5:]]))
    job = finished(client, client.fine_tuning.jobs.create(model="tunesmith/tiny", training_file=file.id))
    assert job.status == "failed"
    assert job.error.code == "invalid_training_file"
    assert job.error.param == "training_file"
    assert "6" in job.error.message
    assert client.files.content(file.id).text.count("\n") == 12


def test_an_unknown_model_is_named(server):
    client = server.client()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody/knows", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "model_not_found"
    assert "nobody/knows" in str(caught.value)
    file = upload(client, (SUPPORT_DESK / "train.jsonl").read_text())
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)) as caught:
        client.fine_tuning.jobs.create(model="nobody/knows", training_file=file.id)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_a_wrong_key_is_refused_everywhere(server):
    client = server.client(api_key="sk-wrong", max_retries=0)
    for call in (client.models.list, client.files.list, client.fine_tuning.jobs.list):
        with pytest.raises(openai.AuthenticationError) as caught:
            call()
        assert caught.value.code == "invalid_api_key"


def test_a_wrong_field_of_a_recipe_is_refused_by_its_path(server):
    client = server.client()
    file = upload(client, (SUPPORT_DESK / "train.jsonl").read_text())
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(
            model="tunesmith/tiny", training_file=file.id, extra_body={"recipe": {"adapter": {"rank": -1}}}
        )
    assert caught.value.param.endswith("adapter.rank")


def test_an_occupied_port_is_one_sentence_and_makes_nothing(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--port", port, "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(port) in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_full_disk_refuses_the_upload_and_keeps_what_was_there(tmp_path):
    """RLIMIT_FSIZE stands for the full disk: the kernel refuses bytes beyond it, as it does when no block is free."""
    code = """
import resource, signal, sys
from tunesmith.store import BlobStore
from tunesmith.errors import StorageFull
from pathlib import Path
store = BlobStore(Path(sys.argv[1]))
kept = store.put([b"kept"])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    store.put([b"x" * 4096] * 64)
except StorageFull as error:
    print(error.code, store.read(kept.sha256).decode(), len(list(Path(sys.argv[1]).rglob("*.new"))))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split() == ["disk_full", "kept", "0"], done.stderr
