"""Projects are made, listed, limited and archived beside a running server; usage is read there."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from tunesmith.cli import keys, projects, usage
from tunesmith.db import usage as rows
from tunesmith.db.migrate import open_database
from tunesmith.db.usage import Used
from tunesmith.errors import InvalidRequest
from tunesmith.paths import DataDir

runner = CliRunner()


def call(module, *arguments):
    return runner.invoke(module.app, [str(argument) for argument in arguments], catch_exceptions=False).stdout


def test_a_project_has_keys_until_it_is_archived(tmp_path):
    data = ["--data-dir", tmp_path / "data"]
    made = json.loads(call(projects, "create", "lab", "--limit", "tokens_per_day=5", *data, "--json"))
    assert made["limits"] == {"tokens_per_day": 5}
    key = json.loads(call(keys, "create", "ci", "--project", "lab", *data, "--json"))
    assert key["project"] == made["id"]
    assert [each["id"] for each in json.loads(call(keys, "list", "--project", "lab", *data, "--json"))] == [key["id"]]
    changed = json.loads(call(projects, "change", "lab", "--name", "works", "--limit", "jobs_at_once=1", *data, "--json"))
    assert (changed["name"], changed["limits"]) == ("works", {"jobs_at_once": 1})
    assert "works" in call(projects, "show", "works", *data)
    call(projects, "archive", "works", *data)
    assert "archived" in call(projects, "list", *data)


def test_usage_is_shown_as_text_csv_and_json(tmp_path):
    data = tmp_path / "data"
    call(projects, "create", "lab", "--data-dir", data)
    database = open_database(DataDir(data).database)
    with database.write() as connection:
        rows.add(connection, [Used("2026-11-02", "proj_a", "ts_k", "=model", requests=2, input_tokens=7, output_tokens=3)])
    database.close()
    days = ["--start", "2026-11-01", "--end", "2026-11-30", "--data-dir", data]
    (row,) = json.loads(call(usage, "--by", "key", "--by", "model", *days, "--json"))
    assert (row["key"], row["model"], row["project"], row["input_tokens"]) == ("ts_k", "=model", None, 7)
    (line,) = csv.DictReader(io.StringIO(call(usage, "--by", "model", *days, "--csv")))
    assert (line["model"], line["requests"]) == ("'=model", "2"), "no spreadsheet computes a name"
    assert "2 requests" in call(usage, *days)
    assert json.loads(call(usage, "--start", "2026-12-01", "--end", "2026-12-02", "--data-dir", data, "--json")) == []
    with pytest.raises(InvalidRequest):
        call(usage, "--by", "colour", *days)
