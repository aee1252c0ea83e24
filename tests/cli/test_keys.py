"""Keys are made, listed and revoked beside a running server, and the text of a key is shown once."""

import json

import pytest
from typer.testing import CliRunner

from tunesmith.cli.keys import app
from tunesmith.db import keys
from tunesmith.db.migrate import open_database
from tunesmith.errors import NotFound, Unauthorized
from tunesmith.paths import DataDir

runner = CliRunner()


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def opens(data_dir, text):
    database = open_database(DataDir(data_dir).database)
    try:
        with database.read() as connection:
            return keys.check(connection, text)
    finally:
        database.close()


def test_a_key_that_was_made_opens_until_it_is_revoked(tmp_path):
    data = tmp_path / "data"
    made = json.loads(call("create", "laptop", "--data-dir", data, "--json").stdout)
    assert opens(data, made["key"]).name == "laptop"
    listed = json.loads(call("list", "--data-dir", data, "--json").stdout)
    assert listed == [{name: value for name, value in made.items() if name != "key"}]
    assert "hash" not in made
    assert made["key"] not in call("list", "--data-dir", data).stdout
    assert json.loads(call("revoke", made["id"], "--data-dir", data, "--json").stdout)["revoked"] is not None
    with pytest.raises(Unauthorized):
        opens(data, made["key"])
    assert "revoked" in call("list", "--data-dir", data).stdout


def test_without_json_only_the_key_is_printed(tmp_path):
    text = call("create", "laptop", "--data-dir", tmp_path / "data").stdout
    assert opens(tmp_path / "data", text.strip()).name == "laptop"


def test_listing_where_nothing_is_makes_nothing(tmp_path):
    with pytest.raises(NotFound, match="no server's data"):
        call("list", "--data-dir", tmp_path / "data")
    assert not (tmp_path / "data").exists()
