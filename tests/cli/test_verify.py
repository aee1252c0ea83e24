"""An adapter is verified by name and by folder; what `adapters show` tells of it."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesmith.cli.adapters import app as adapters
from tunesmith.cli.verify import app
from tunesmith.errors import InvalidRequest
from tunesmith.models.drift import Drift, write_drift


def call(command, *arguments):
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False).stdout


@pytest.fixture
def folder(make_adapter, tmp_path):
    shutil.copytree(make_adapter(1).path, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_folder_is_proven_and_shown(folder, tmp_path):
    assert "It was not proven yet" in call(adapters, "show", folder, "--data-dir", tmp_path / "data")
    told = json.loads(call(app, folder, "--count", 3, "--threads", 1, "--data-dir", tmp_path / "data", "--json"))
    assert told["conversations"] == 3
    assert told["worst"] < 1e-4
    write_drift(folder, "nf4", Drift(0.0495, 0.5, 1.6382, 1.7333, 400, 11))
    shown = call(adapters, "show", folder, "--data-dir", tmp_path / "data")
    assert "lora, rank 4, scale 2" in shown
    assert f"Proven on {told['tokens']:,} tokens" in shown
    assert "On nf4: 0.0495 nats away in the mean (KL), loss 1.7333 instead of 1.6382." in shown
    whole = json.loads(call(adapters, "show", folder, "--data-dir", tmp_path / "data", "--json"))
    assert whole["proof"]["tokens"] == told["tokens"]
    assert whole["drift"]["nf4"]["kl"] == 0.0495


def test_a_base_was_not_trained_here(tmp_path: Path):
    for command, verb in ((app, []), (adapters, ["show"])):
        with pytest.raises(InvalidRequest, match="is a base"):
            call(command, *verb, "tunesmith/tiny", "--data-dir", tmp_path)
