"""Keys are made, listed and revoked beside a running server, and the text of a key is shown once."""

import json

import pytest
from typer.testing import CliRunner

from tunesmith.cli.keys import app
from tunesmith.db import keys
from tunesmith.db.migrate import open_database
from tunesmith.errors import NotFound, TunesmithError, Unauthorized
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
    assert json.loads(call("revoke", made["id"], "--data-dir", data, "--json").stdout)["revoked_at"] is not None
    with pytest.raises(Unauthorized):
        opens(data, made["key"])
    assert "revoked" in call("list", "--data-dir", data).stdout


def test_without_json_only_the_key_is_printed(tmp_path):
    text = call("create", "laptop", "--data-dir", tmp_path / "data").stdout
    assert opens(tmp_path / "data", text.strip()).name == "laptop"


def test_what_a_key_may_do_is_said_when_it_is_made(tmp_path):
    data = tmp_path / "data"
    flags = ["--role", "viewer", "--scope", "files.read", "--model", "ft:*", "--expires", "30d", "--limit", "tokens_per_day=9"]
    made = json.loads(call("create", "ci", *flags, "--data-dir", data, "--json").stdout)
    assert (made["role"], made["scopes"], made["models"]) == ("viewer", ["files.read"], ["ft:*"])
    assert made["limits"] == {"tokens_per_day": 9}
    assert made["expires_at"] // 60 in (made["created_at"] // 60 + 30 * 1440 - 1, made["created_at"] // 60 + 30 * 1440)
    shown = call("show", "ci", "--data-dir", data).stdout
    for words in ("viewer of proj_default", "files.read", "ft:*", "tokens_per_day=9", "never"):
        assert words in shown


def test_a_rotated_key_works_beside_its_successor(tmp_path):
    data = tmp_path / "data"
    old = json.loads(call("create", "ci", "--data-dir", data, "--json").stdout)
    new = json.loads(call("rotate", old["id"], "--overlap", "1h", "--data-dir", data, "--json").stdout)
    assert opens(data, old["key"]).successor == new["id"]
    assert opens(data, new["key"]).id == new["id"]


@pytest.mark.parametrize("flags", [["--scope", "x"], ["--limit", "tokens=1"], ["--expires", "soon"], ["--project", "nobody"]])
def test_rights_that_are_none_are_refused_in_one_sentence(tmp_path, flags):
    with pytest.raises(TunesmithError):
        call("create", "ci", *flags, "--data-dir", tmp_path / "data")


def test_listing_where_nothing_is_makes_nothing(tmp_path):
    with pytest.raises(NotFound, match="no server's data"):
        call("list", "--data-dir", tmp_path / "data")
    assert not (tmp_path / "data").exists()
