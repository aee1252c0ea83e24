import json
import subprocess
import sys

from tunesmith.cli.main import VERBS


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "tunesmith", *arguments], capture_output=True, text=True)


def test_help_lists_every_verb_and_imports_nothing_heavy():
    code = """
import json, sys
from tunesmith.cli.main import app
try:
    app(["--help"])
except SystemExit:
    pass
heavy = {"torch", "transformers", "fastapi", "sqlalchemy", "openai", "rich", "aiohttp", "pydantic"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *text, loaded = done.stdout.splitlines()
    assert json.loads(loaded) == []
    assert all(any(line.split()[:1] == [verb] for line in text) for verb in VERBS)


def test_every_verb_explains_itself():
    for verb in VERBS:
        done = run(verb, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage:" in done.stdout


def test_an_unknown_verb_is_one_sentence_and_no_traceback():
    done = run("trian")
    assert done.returncode == 2
    assert "trian" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_known_error_is_one_sentence_with_a_next_step():
    done = run("train", "no-such-recipe.toml")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no recipe at")
    assert "Traceback" not in done.stderr
