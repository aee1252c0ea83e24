"""An alias is made and moved beside a running server, and versions are listed with their names."""

import json

import pytest
from orders import tuning_job
from typer.testing import CliRunner

from tunesmith.cli.adapters import app
from tunesmith.db import jobs, models
from tunesmith.db.migrate import open_database
from tunesmith.db.models import FineTuned
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.paths import DataDir

ONE, TWO = "ft:tunesmith/tiny:local:one:aaaaaaaa", "ft:tunesmith/tiny:local:two:bbbbbbbb"


@pytest.fixture
def call(tmp_path):
    database = open_database(DataDir(tmp_path).make().database)
    with database.write() as connection:
        for number, name in enumerate((ONE, TWO)):
            jobs.add(connection, tuning_job(f"ftjob-{number}", status="succeeded"))
            models.add(connection, FineTuned(name, "tunesmith/tiny", "none", "x", f"hash{number}", f"ftjob-{number}", 1))
    database.close()

    def run(*arguments):
        return CliRunner().invoke(app, [*arguments, "--data-dir", str(tmp_path)], catch_exceptions=False).stdout

    return run


def test_an_alias_is_made_moved_listed_and_taken_away(call):
    assert call("alias", "live", ONE) == f"live is {ONE}.\n"
    moved = json.loads(call("alias", "live", TWO, "--json"))
    assert (moved["model"], moved["previous"]) == (TWO, ONE)
    assert call("aliases") == f"{'live':<24}  {TWO}  (before: {ONE})\n"
    assert json.loads(call("aliases", "--json")) == [moved]
    assert call("list") == f"hash0  {ONE}\nhash1  live, {TWO}\n"
    assert [version["aliases"] for version in json.loads(call("list", "--json"))] == [[], ["live"]]
    assert json.loads(call("unalias", "live", "--json"))["deleted"] is True
    assert call("aliases") == ""


def test_what_is_no_alias_no_model_and_no_project_is_told(call):
    with pytest.raises(InvalidRequest, match="'ft:x' is no alias"):
        call("alias", "ft:x", ONE)
    with pytest.raises(NotFound, match="does not exist"):
        call("alias", "live", "ft:nobody")
    with pytest.raises(NotFound, match="There is no alias 'live'"):
        call("unalias", "live")
    with pytest.raises(NotFound):
        call("aliases", "--project", "nobody")
