"""What can be served with is listed, and what is not installed is said in one sentence with the next step."""

import json

import pytest
from typer.testing import CliRunner

from tunesmith.cli.engines import app
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.settings import Settings

runner = CliRunner()


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False).stdout


def test_our_own_engine_is_always_there_and_an_installed_one_is_shown(tmp_path):
    rows = json.loads(call("list", "--data-dir", tmp_path, "--json"))
    assert [(row["name"], row["is_installed"]) for row in rows] == [("embedded", True), ("vllm", False)]
    assert "vllm       not installed" in call("list", "--data-dir", tmp_path)
    stamp = tmp_path / "engines" / "vllm" / "tunesmith.json"
    stamp.parent.mkdir(parents=True)
    stamp.write_text(json.dumps({"name": "vllm", "package": "vllm==0.33.0", "installed_at": 1}))
    assert "vllm       vllm==0.33.0" in call("list", "--data-dir", tmp_path)
    assert json.loads(call("install", "vllm", "--data-dir", tmp_path, "--json"))["package"] == "vllm==0.33.0"
    assert "removed" in call("remove", "vllm", "--data-dir", tmp_path)
    assert not stamp.parent.exists()


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(NotFound, match="There is no engine 'sglang' to install. There is: vllm"):
        call("install", "sglang", "--data-dir", tmp_path)
    with pytest.raises(NotFound, match="vllm is not installed"):
        call("remove", "vllm", "--data-dir", tmp_path)


@pytest.mark.parametrize(("flags", "words"), [
    ({"quantize": "int8", "engine": "vllm"}, "--quantize is for --engine embedded, not vllm"),
    ({"tensor_parallel": 2}, "--tensor-parallel is for --engine vllm, not embedded"),
    ({"quantization": "fp8"}, "--quantization is for --engine vllm"),
    ({"upstream": "http://x/v1"}, "--upstream is for --engine openai"),
    ({"engine": "openai"}, "needs the address of a server"),
])
def test_a_flag_that_the_engine_would_not_obey_is_refused(flags, words):
    with pytest.raises(InvalidRequest, match=words):
        Settings.from_environment(**flags)
