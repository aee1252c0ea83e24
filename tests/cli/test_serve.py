"""The server as a process: one ready line, one key at first start, a clean end, and clear words when it cannot start."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import openai
import pytest

from tunesmith.paths import SUPPORT_DESK, TINY

SMALL_DISK = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""
SERVE = [sys.executable, "-m", "tunesmith", "serve", "--port", "0"]


@contextmanager
def serving(data_dir, *flags):
    command = [*SERVE, "--data-dir", str(data_dir), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while not lines or "is ready" not in lines[-1]:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            lines.append(line)
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def get(url, key=""):
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as reply:
        return reply.read()


def url_of(lines):
    return re.search(r"http://[\d.]+:\d+", lines[-1]).group()


def test_a_server_says_once_that_it_is_ready_and_shows_its_first_key_once(tmp_path):
    with serving(tmp_path / "data") as (process, lines):
        assert len(lines) == 2
        key = re.search(r"ts_\w+", lines[0]).group()
        assert b"tunesmith/tiny" in get(url_of(lines) + "/v1/models", key)
        assert json.loads(get(url_of(lines) + "/health"))["status"] in {"loading", "ok"}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
        assert (process.returncode, out, err) == (0, "", "")
    with serving(tmp_path / "data") as (process, lines):
        assert len(lines) == 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert process.returncode == 130
        assert "Traceback" not in err


def test_the_server_ends_with_its_parent(tmp_path, monkeypatch):
    """The parent is a shell that starts the server, tells its process id, and is killed."""
    # A server that is forked from a test's zygote has another parent.
    monkeypatch.delenv("TUNESMITH_TEST_ZYGOTES", raising=False)
    script = f"{' '.join(SERVE)} --data-dir {tmp_path / 'data'} --exit-with-parent & echo $!; wait"
    parent = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    pid = int(parent.stdout.readline())
    while "is ready" not in parent.stdout.readline():
        assert parent.poll() is None
    parent.kill()
    assert parent.communicate()[0] is not None  # the pipe closes only when the server, which holds it too, is gone
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_an_unknown_base_and_a_foreign_address_are_one_sentence_and_make_nothing(tmp_path):
    for flags, said in ((["--base", "nobody/knows"], "nobody/knows"), (["--host", "192.0.2.1"], "192.0.2.1")):
        done = subprocess.run([*SERVE, "--data-dir", str(tmp_path / "data"), *flags], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "data").exists()


def test_a_full_disk_refuses_an_upload_with_507_and_the_server_goes_on(tmp_path):
    """RLIMIT_FSIZE stands for the full disk: the kernel refuses bytes beyond it, as it does when no block is free."""
    limit = 4 * 1024 * 1024
    command = [sys.executable, "-c", SMALL_DISK, str(limit), *SERVE, "--data-dir", str(tmp_path / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        key = re.search(r"ts_\w+", process.stdout.readline()).group()
        base_url = url_of([process.stdout.readline()]) + "/v1"
        with openai.OpenAI(base_url=base_url, api_key=key) as client:
            kept = client.files.create(file=("kept.jsonl", io.BytesIO(b"kept")), purpose="fine-tune")
            with pytest.raises(openai.InternalServerError) as caught:
                client.files.create(file=("big.jsonl", io.BytesIO(b"x" * (limit + 1))), purpose="fine-tune")
            assert (caught.value.status_code, caught.value.code) == (507, "disk_full")
            assert client.files.content(kept.id).read() == b"kept"
            assert [file.id for file in client.files.list()] == [kept.id]
        assert not list((tmp_path / "data" / "blobs").glob(".*"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0


@pytest.mark.slow
def test_a_killed_server_takes_its_worker_with_it_and_the_next_one_goes_on_at_once(tmp_path):
    rows = b"".join((SUPPORT_DESK / "train.jsonl").read_bytes().splitlines(keepends=True)[:16])
    with serving(tmp_path / "data") as (process, lines):
        key = re.search(r"ts_\w+", lines[0]).group()
        with openai.OpenAI(base_url=url_of(lines) + "/v1", api_key=key) as client:
            file = client.files.create(file=("rows.jsonl", io.BytesIO(rows)), purpose="fine-tune")
            recipe = {"method": {"epochs": 4, "batch_size": 4}, "checkpoints": {"every_steps": 2}, "threads": 1}
            job = client.fine_tuning.jobs.create(
                model="tunesmith/tiny", training_file=file.id, extra_body={"recipe": recipe}
            )
            while not any(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job.id, limit=100).data):
                time.sleep(0.05)
        process.kill()
        process.wait()
    folder = str(tmp_path / "data" / "runs" / job.id)
    while any(folder.encode() in line for line in command_lines()):
        time.sleep(0.05)
    with serving(tmp_path / "data") as (process, lines), openai.OpenAI(base_url=url_of(lines) + "/v1", api_key=key) as client:
        while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in {"succeeded", "failed"}:
            time.sleep(0.1)
        assert (job.status, job.to_dict()["attempt"]) == ("succeeded", 2), job.error


def command_lines():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield (entry / "cmdline").read_bytes()


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "tunesmith", *map(str, arguments)], capture_output=True, text=True)


def test_it_answers_health_while_it_loads_starts_its_engine_unasked_and_takes_bases_from_the_command_line(tmp_path):
    """From the first moment on: the port answers before anything heavy is imported."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    data, url = tmp_path / "data", f"http://127.0.0.1:{port}"
    command = [*SERVE, "--data-dir", str(data), "--port", str(port), "--threads", "1"]
    seen = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not seen or seen[-1]["status"] == "loading":
                assert process.poll() is None
                with suppress(urllib.error.URLError, ConnectionError):
                    told = json.loads(get(f"{url}/health"))
                    seen += [told] if told not in seen[-1:] else []
                time.sleep(0.02)
            assert seen[0] == {"status": "loading", "engines": []}
            assert seen[-1]["engines"][0]["status"] == "ready"
            progress = [engine["progress"] for told in seen for engine in told["engines"]]
            assert progress == sorted(progress)
            added = run("models", "add", TINY, "--name", "second", "--data-dir", data, "--json")
            assert json.loads(added.stdout)["served_at"] == f"{url}/v1", added.stderr
            assert [engine["base"] for engine in json.loads(get(f"{url}/health"))["engines"]] == ["tunesmith/tiny", "second"]
            assert run("models", "remove", "second", "--data-dir", data).returncode == 0
            assert [engine["base"] for engine in json.loads(get(f"{url}/health"))["engines"]] == ["tunesmith/tiny"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
    assert process.returncode == 0
    assert not (data / "desk.json").exists()
    assert json.loads(run("models", "add", "tunesmith/tiny", "--data-dir", data, "--json").stdout)["served_at"] is None


def test_vllm_that_is_not_installed_is_said_at_once(tmp_path):
    ended = run("serve", "--port", "0", "--data-dir", tmp_path, "--engine", "vllm")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "tunesmith engines install vllm" in ended.stderr
