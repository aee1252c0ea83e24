"""Batches are ordered, watched and read from the command line, through a running server."""

import json

import pytest
from api.conftest import serve
from typer.testing import CliRunner

from tunesmith.cli.batches import app
from tunesmith.settings import Settings

runner = CliRunner()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(Settings(data_dir=tmp_path_factory.mktemp("data"), threads=1, lazy=True)) as running:
        yield running


@pytest.fixture
def call(served):
    def run(*arguments):
        words = [*map(str, arguments), "--url", f"http://127.0.0.1:{served.port}/v1", "--key", served.key]
        done = runner.invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    return run


def object_in(printed):
    """The server's log, which in this process goes the same way, may stand around it."""
    lines = printed.splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if line.startswith("{"))
    return json.JSONDecoder().raw_decode("".join(lines[start:]))[0]


def test_a_batch_is_ordered_watched_and_read(call, tmp_path):
    body = {"model": "tunesmith/tiny", "input": "Good day"}
    lines = [{"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body} for name in "ab"]
    lines[1]["body"] = {"model": "nobody/knows", "input": ""}
    path = tmp_path / "input.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    batch = object_in(call("create", path, "--endpoint", "/v1/embeddings", "--wait", "--json"))
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 2, "completed": 1, "failed": 1})
    assert object_in(call("show", batch["id"], "--json")) == batch
    assert "1/2 answered, 1 failed" in call("show", batch["id"])
    assert f"{batch['id']}  completed" in call("list")
    assert object_in(call("output", batch["id"]))["custom_id"] == "a"
    assert object_in(call("output", batch["id"], "--errors"))["custom_id"] == "b"


def test_what_is_wrong_with_a_file_is_told_by_line(call, tmp_path):
    path = tmp_path / "input.jsonl"
    path.write_text("no\n")
    assert "line 1: This line is not valid JSON." in call("create", path, "--wait")
