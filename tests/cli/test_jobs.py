"""Jobs are listed, shown, followed and cancelled from the data directory itself."""

import json

import pytest
from orders import tuning_job
from typer.testing import CliRunner

from tunesmith.cli.jobs import app
from tunesmith.db.migrate import open_database
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.jobs.queue import Queue
from tunesmith.paths import DataDir
from tunesmith.recipes.run import parse

runner = CliRunner()
RECIPE = parse({"data": {"train": "training.jsonl"}}).model_dump(mode="json")


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False).stdout


@pytest.fixture
def data(tmp_path):
    dirs = DataDir(tmp_path / "data").make()
    database = open_database(dirs.database)
    for name in ("ftjob-1", "ftjob-2"):
        Queue(database).submit(tuning_job(name, recipe=RECIPE, created=1_700_000_000))
    database.close()
    return dirs.root


def test_jobs_are_listed_newest_first(data):
    assert [job["id"] for job in json.loads(call("list", "--data-dir", data, "--json"))] == ["ftjob-2", "ftjob-1"]
    assert call("list", "--data-dir", data, "--limit", 1).startswith("ftjob-2  validating_files")


def test_a_batch_is_no_fine_tuning_job(data):
    database = open_database(DataDir(data).database)
    Queue(database).submit(tuning_job("batch_1", kind="batch", order={"input_file_id": "file-1"}))
    database.close()
    assert "batch_1" not in call("list", "--data-dir", data)
    for verb in ("show", "cancel", "logs"):
        with pytest.raises(NotFound, match="no fine-tuning job"):
            call(verb, "batch_1", "--data-dir", data)


def test_a_job_is_shown_and_cancelled(data):
    assert json.loads(call("show", "ftjob-1", "--data-dir", data, "--json"))["recipe"]["base"] == "tunesmith/tiny"
    assert "validating_files" in call("show", "ftjob-1", "--data-dir", data)
    assert call("cancel", "ftjob-1", "--data-dir", data) == "ftjob-1 is cancelled.\n"
    with pytest.raises(InvalidRequest, match="already cancelled"):
        call("cancel", "ftjob-1", "--data-dir", data)
    with pytest.raises(NotFound):
        call("show", "ftjob-9", "--data-dir", data)


def test_logs_are_printed_in_order_and_following_ends_with_the_job(data):
    call("cancel", "ftjob-1", "--data-dir", data)
    lines = call("logs", "ftjob-1", "--follow", "--data-dir", data, "--json").splitlines()
    assert [json.loads(line)["message"] for line in lines] == [
        "Created fine-tuning job: ftjob-1",
        "Validating training file: file-1",
        "Fine-tuning job cancelled",
    ]
    assert call("logs", "ftjob-1", "--data-dir", data).splitlines()[0].endswith("Created fine-tuning job: ftjob-1")
