"""`tunesmith plan` answers without a server, a network or torch: as a table, as JSON and as a picture."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tunesmith.cli.plan import app
from tunesmith.errors import InvalidRequest, NotFound

runner = CliRunner()


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False).stdout


def test_it_says_what_fits_how_long_and_how_much():
    told = call("--base", "qwen3-8b", "--method", "qlora", "--tokens", 2048)
    assert "Qwen/Qwen3-8B: 8,190,735,360 parameters, of which 43,646,976 train" in told
    for word in ("L40S", "hours", "USD", "spot", "undated", "T4: has no bf16", "SageMaker: no price"):
        assert word in told


def test_json_is_plain_integers():
    told = json.loads(call("--base", "Qwen/Qwen3-8B", "--method", "qlora", "--json"))
    assert told["parameters"] == 8190735360
    assert all(type(option["peak_bytes"]) is int for option in told["options"])


def test_one_gpu_and_one_provider_can_be_asked_for():
    told = json.loads(call("--base", "qwen3-8b", "--gpu", "a100-80gb", "--provider", "aws", "--json"))
    assert {option["gpu"] for option in told["options"]} == {"A100-80GB"}
    assert {offer["provider"] for option in told["options"] for offer in option["offers"]} == {"AWS"}


def test_your_own_prices_come_in_by_a_file(tmp_path):
    (tmp_path / "own.csv").write_text("provider,gpu,usd_per_gpu_hour\nCellar,RTX3090,0.02\n")
    told = json.loads(call("--base", "qwen3-0.6b", "--gpu", "RTX3090", "--prices", tmp_path / "own.csv", "--json"))
    assert told["options"][0]["offers"][0]["provider"] == "Cellar"


def test_serving_is_planned_with_its_cache():
    told = json.loads(call("--base", "llama-3.1-70b", "--method", "serve", "--precision", "nf4", "--tokens", 8192, "--json"))
    assert {option["gpu"]: option["count"] for option in told["options"]}["A40"] == 1
    assert "needs 132.0 GiB" in call("--base", "llama-3.1-70b", "--method", "serve")


def test_the_picture_is_drawn_as_svg_and_png(tmp_path):
    call("--base", "qwen3-8b", "--picture", tmp_path / "plan.svg")
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")
    pytest.importorskip("PIL", reason="the extra `picture` is not installed")
    call("--base", "qwen3-8b", "--picture", tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_what_there_is_not_is_refused_with_what_there_is():
    with pytest.raises(NotFound, match="Qwen/Qwen3-8B"):
        call("--base", "qwen3-9b")
    with pytest.raises(InvalidRequest, match="qlora"):
        call("--base", "qwen3-8b", "--method", "magic")
    with pytest.raises(InvalidRequest, match="svg"):
        call("--base", "qwen3-8b", "--picture", "plan.pdf")


def test_planning_imports_no_torch():
    code = (
        "import sys; from tunesmith.cli.plan import app; import tunesmith.plan.picture, tunesmith.plan.serve; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
