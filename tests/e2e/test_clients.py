"""Scripts as people wrote them for OpenAI, run unchanged with official clients: two of Python's, and Node's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import start, stop

from tunesmith.paths import SUPPORT_DESK

SCRIPTS = Path(__file__).parent / "clients"
INSTALLED = Path(sys.prefix) / "clients"
"""Where `make clients` puts the clients that are not this environment's own."""
OTHER = "openai-2.54"
VERSIONS = ["installed", OTHER]
BEFORE = """
import openai, runpy, sys
print(openai.__version__)
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0])
except openai.BadRequestError as error:
    print(error.code, file=sys.stderr)
    raise
"""
"""Says first which client it is, and of a refusal its code."""
LATER = {
    "rft": "reinforcement and python graders come with the issue on rewards",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = start(tmp_path_factory.mktemp("clients") / "data", "--alias", "gpt-4o-mini-2024-07-18=tunesmith/tiny")
    yield running
    stop(running)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A training file of 12 rows and a validation file of 4."""
    folder = tmp_path_factory.mktemp("rows")
    lines = (SUPPORT_DESK / "train.jsonl").read_text().splitlines()
    for name, part in (("train.jsonl", lines[:12]), ("valid.jsonl", lines[12:16])):
        (folder / name).write_text("\n".join(part) + "\n")
    return folder / "train.jsonl", folder / "valid.jsonl"


def environment(served, **more):
    return {**os.environ, "OPENAI_BASE_URL": served.url, "OPENAI_API_KEY": served.key, **more}


def run_script(served, name, version, *arguments):
    folder = INSTALLED / OTHER
    if version == OTHER and not folder.is_dir():
        pytest.skip(f"{OTHER} is not installed: run `make clients`")
    path = f"{folder}:{SCRIPTS}" if version == OTHER else str(SCRIPTS)
    command = [sys.executable, "-c", BEFORE, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment(served, PYTHONPATH=path), capture_output=True, text=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["sft", "dpo", "distillation", "batch", "evals"])
def test_a_script_for_openai_runs_unchanged(served, rows, name, version):
    done = run_script(served, name, version, *(rows if name == "sft" else ()))
    assert done.returncode == 0, done.stderr
    client, last = done.stdout.split()
    assert last == "done"
    assert client.startswith("2.54." if version == OTHER else "3.")


class NotYet(Exception):
    """The server refused because a part is missing, and said so."""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.xfail(raises=NotYet, reason=why, strict=True)) for name, why in LATER.items()
])
def test_a_script_for_a_later_method_runs_unchanged(served, name, version):
    done = run_script(served, name, version)
    if "not_available" in done.stderr:
        raise NotYet(done.stderr)
    assert done.returncode == 0, done.stderr


def test_the_node_client_fine_tunes_and_chats(served, rows):
    modules = INSTALLED / "node" / "node_modules"
    if shutil.which("node") is None or not modules.is_dir():
        pytest.skip("the Node client is not installed: run `make clients`")
    # An import is looked up beside the script.
    script = modules.parent / "sft.mjs"
    shutil.copyfile(SCRIPTS / "sft.mjs", script)
    done = subprocess.run(["node", str(script), str(rows[0])], env=environment(served), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
