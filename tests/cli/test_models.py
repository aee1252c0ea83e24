"""Bases and fine-tuned models are listed and shown from the data directory itself, also where no server ever ran."""

import json

import pytest
from orders import tuning_job
from typer.testing import CliRunner

from tunesmith.cli.models import app
from tunesmith.db import jobs, models
from tunesmith.db.migrate import open_database
from tunesmith.db.models import FineTuned
from tunesmith.errors import NotFound
from tunesmith.paths import DataDir

runner = CliRunner()
TUNED = "ft:tunesmith/tiny:local:mine:a1B2c3D4"


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False).stdout


def test_the_built_in_base_is_there_before_anything_else(tmp_path):
    found = json.loads(call("list", "--data-dir", tmp_path / "none", "--json"))
    assert [model["id"] for model in found] == ["tunesmith/tiny"]
    assert found[0]["num_parameters"] <= 4_000_000
    assert not (tmp_path / "none").exists()


def test_a_tuned_model_is_listed_and_shown_with_what_it_stands_on(tmp_path):
    dirs = DataDir(tmp_path).make()
    database = open_database(dirs.database)
    with database.write() as connection:
        jobs.add(connection, tuning_job("ftjob-1"))
        models.add(connection, FineTuned(TUNED, "tunesmith/tiny", "nf4", "runs/ftjob-1/artifacts/adapter", "00", "ftjob-1", 1))
    database.close()
    assert TUNED in call("list", "--data-dir", tmp_path)
    shown = json.loads(call("show", TUNED, "--data-dir", tmp_path, "--json"))
    assert (shown["base"], shown["quantization"], shown["job_id"]) == ("tunesmith/tiny", "nf4", "ftjob-1")
    assert shown["folder"] == str(tmp_path / "runs/ftjob-1/artifacts/adapter")
    with pytest.raises(NotFound):
        call("show", "nobody/knows", "--data-dir", tmp_path)
