"""A run's numbers go where its recipe says, each service run for real as it is without a network; one that fails is a warning."""

import importlib
import importlib.util
import sqlite3
import sys
import types

import pytest

from tunesmith.errors import InvalidRecipe
from tunesmith.recipes.run import parse
from tunesmith.recipes.tracking import SETTINGS, TRACKERS, lacking
from tunesmith.runfolder import RunFolder
from tunesmith.train.tracking import numbers_of, tracked


def needs(type):
    return pytest.mark.skipif(importlib.util.find_spec(type) is None, reason=f"needs tunesmith[{type}]")


def run(tmp_path, *tracking, name="ftjob-1", steps=(1, 2)):
    """What was told as events; the services are told beside."""
    recipe = parse({"data": {"train": "x.jsonl"}, "tracking": list(tracking)})
    folder = RunFolder(tmp_path / name).create(recipe)
    told = []
    with tracked(recipe, folder, lambda type, **fields: told.append((type, fields))) as emit:
        emit("phase", message="Training")
        for step in steps:
            emit("step", step=step, total_steps=2, loss=0.5 / step, token_accuracy=0.25, learning_rate=0.1, memory_bytes=5)
        emit("eval", step=steps[-1], rows=3, loss=0.75, token_accuracy=0.5)
    return told


KINDS = ["phase", "step", "step", "eval"]


def test_numbers_have_openais_names_and_a_methods_own_keep_theirs():
    fields = {"step": 1, "total_steps": 9, "loss": 0.5, "token_accuracy": 0.25, "grad_norm": 2, "rewards/margins": 0.1}
    assert numbers_of("step", fields) == {
        "train_loss": 0.5, "train_mean_token_accuracy": 0.25, "grad_norm": 2.0, "rewards/margins": 0.1,
    }  # fmt: skip
    assert numbers_of("eval", {"step": 1, "rows": 4, "loss": 0.5, "rewards/margins": 0.1}) == {
        "full_valid_loss": 0.5, "full_valid_rewards/margins": 0.1,
    }  # fmt: skip


@needs("wandb")
def test_weights_and_biases_is_told_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    told = run(tmp_path, {"project": "mine", "tags": ["a"]})
    assert [type for type, _ in told] == KINDS
    (log,) = (tmp_path / "ftjob-1" / "wandb").glob("offline-run-*/run-ftjob-1-0.wandb")
    data = log.read_bytes()
    for name in (b"train_loss", b"train_mean_token_accuracy", b"full_valid_loss", b"tunesmith/finetune", b"mine"):
        assert name in data, name


@needs("mlflow")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_mlflow_is_told_in_a_database_and_a_job_that_goes_on_is_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert [type for type, _ in run(tmp_path, {"type": "mlflow", "project": "mine"})] == KINDS
    run(tmp_path, {"type": "mlflow", "project": "mine"}, steps=(3,))
    from mlflow import MlflowClient

    client = MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (found.info.run_name, found.info.status) == ("ftjob-1", "FINISHED")
    assert found.data.params["base"] == "tunesmith/tiny"
    history = client.get_metric_history(found.info.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25), (3, 0.5 / 3)]


@needs("mlflow")
def test_a_server_of_mlflows_that_does_not_answer_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = run(tmp_path, {"type": "mlflow", "project": "mine"})
    assert [type for type, _ in told] == ["warning", *KINDS]
    assert "MLflow cannot be reached" in told[0][1]["message"]


@needs("tensorboard")
def test_tensorboards_files_lie_in_the_run_folder(tmp_path):
    assert [type for type, _ in run(tmp_path, {"type": "tensorboard"})] == KINDS
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "ftjob-1" / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("train_loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in read.Scalars("full_valid_loss")] == [0.75]


@needs("trackio")
def test_trackios_database_has_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    assert [type for type, _ in run(tmp_path, {"type": "trackio", "project": "mine"})] == KINDS
    with sqlite3.connect(tmp_path / "trackio" / "mine.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert {name for name, _, _ in rows} == {"ftjob-1"}
    assert any(b"train_loss" in bytes(metrics) and step == 1 for _, step, metrics in rows)


def test_a_service_that_fails_midway_is_told_once_and_the_others_go_on(tmp_path, monkeypatch):
    """A service of our own, in the place of one that may not be installed."""
    logged = []

    def started(wanted, number, recipe, folder):
        class Run:
            def __enter__(self):
                return log

            def __exit__(self, *error):
                raise ConnectionError("gone too")

        def log(numbers, step):
            logged.append(step)
            raise ConnectionError("gone")

        return Run()

    fake = types.SimpleNamespace(NAME="Trackio", ERRORS=(OSError,), started=started)
    monkeypatch.setitem(sys.modules, "tunesmith.train.trackers.trackio", fake)
    told = run(tmp_path, {"type": "trackio", "project": "mine"})
    assert logged == [1]
    assert [type for type, _ in told if type != "warning"] == KINDS
    assert ["gone" in fields["message"] for type, fields in told if type == "warning"] == [True, True]


def test_every_service_has_a_file_and_says_what_it_lacks(monkeypatch):
    for type, cls in TRACKERS.items():
        assert importlib.util.find_spec(f"tunesmith.train.trackers.{type}") is not None
        tracker = cls(**({} if type == "tensorboard" else {"project": "mine"}))
        names, hint = SETTINGS.get(type, ((), ""))
        for name in names:
            monkeypatch.delenv(name, raising=False)
        with monkeypatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda name: None)
            assert f"tunesmith[{type}]" in lacking(tracker)
        with monkeypatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda name: name)
            assert (lacking(tracker) or "") == hint
            for name in names[:1]:
                patch.setenv(name, "x")
            assert lacking(tracker) is None


def test_a_service_that_there_is_not_is_refused_by_its_field():
    with pytest.raises(InvalidRecipe, match="there are: wandb, mlflow, tensorboard, trackio") as caught:
        parse({"data": {"train": "x.jsonl"}, "tracking": [{"type": "comet"}]})
    assert caught.value.param == "tracking.0.type"
    with pytest.raises(InvalidRecipe, match="tracking.0.project"):
        parse({"data": {"train": "x.jsonl"}, "tracking": [{"type": "mlflow"}]})
