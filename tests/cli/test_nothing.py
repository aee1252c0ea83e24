"""A list with nothing in it says so, and how there comes to be something, where no reader of rows sees it."""

import importlib
import json

import pytest
from typer.testing import CliRunner

from tunesmith.db.migrate import open_database
from tunesmith.paths import DataDir

LISTS = [("keys", "list", "create"), ("jobs", "list", "recipe"), ("webhooks", "list", "create"), ("adapters", "list", "job"),
         ("adapters", "aliases", "alias"), ("usage", None, "Nothing was used")]  # fmt: skip


@pytest.mark.parametrize(("module", "verb", "word"), LISTS)
def test_a_list_of_nothing_says_how_there_comes_to_be_something(tmp_path, module, verb, word):
    data = DataDir(tmp_path / "data").make()
    open_database(data.database).close()
    words = [*([verb] if verb else []), "--data-dir", str(data.root)]
    app = importlib.import_module(f"tunesmith.cli.{module}").app
    said = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (said.exit_code, said.stdout) == (0, "")
    assert word in said.stderr
    quiet = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert (json.loads(quiet.stdout), quiet.stderr) == ([], "")
