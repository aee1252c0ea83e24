"""A run's numbers go to Weights & Biases where the recipe says so; here into a folder: its offline mode needs no network."""

import importlib.util

import pytest

from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder

pytestmark = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs tunesmith[wandb]")


def test_numbers_are_told_under_openais_names_and_events_go_their_way(tmp_path, monkeypatch):
    from tunesmith.train.tracking import tracked

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    recipe = parse({"data": {"train": "x.jsonl"}, "tracking": [{"project": "mine", "tags": ["a"]}]})
    told = []
    folder = RunFolder(tmp_path / "ftjob-1").create(recipe)
    with tracked(recipe, folder, lambda type, **fields: told.append((type, fields))) as emit:
        emit("phase", message="Training")
        emit("step", step=1, loss=0.5, token_accuracy=0.25, learning_rate=0.1)
        emit("eval", step=1, loss=0.75, token_accuracy=0.5)
    assert [name for name, _ in told] == ["phase", "step", "eval"]
    (log,) = (tmp_path / "ftjob-1" / "wandb").glob("offline-run-*/run-ftjob-1-0.wandb")
    data = log.read_bytes()
    for name in (b"train_loss", b"train_mean_token_accuracy", b"full_valid_loss", b"tunesmith/finetune", b"mine"):
        assert name in data, name
