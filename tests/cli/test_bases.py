"""`tunesmith models pull|add|remove`, run as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from orders import tuning_job
from safetensors.numpy import save_file

from tunesmith.db import jobs, models
from tunesmith.db.migrate import open_database
from tunesmith.paths import TINY, DataDir


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tunesmith", "models", *arguments], capture_output=True, text=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8, "max_position_embeddings": 64}))
    (folder / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    save_file({"w": numpy.zeros((4, 8), dtype=numpy.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def where(tmp_path: Path) -> tuple[str, str]:
    return ("--data-dir", str(tmp_path / "data"))


def test_a_base_is_added_listed_and_removed(model: Path, where: tuple[str, str]) -> None:
    added = json.loads(run("add", str(model), "--name", "org/mine", "--json", *where).stdout)
    assert (added["id"], added["kind"], added["path"]) == ("org/mine", "link", str(model))
    assert "org/mine" in {each["id"] for each in json.loads(run("list", "--json", *where).stdout)}
    done = run("remove", "org/mine", *where)
    assert done.returncode == 0
    assert f"the files in {model} are untouched" in done.stdout
    assert "org/mine" not in run("list", *where).stdout


def test_a_base_that_a_fine_tuned_model_needs_stays_unless_forced(model: Path, where: tuple[str, str]) -> None:
    run("add", str(model), *where)
    database = open_database(DataDir(Path(where[1])).database)
    with database.write() as connection:
        jobs.add(connection, tuning_job("ftjob-1", base="mine", status="succeeded"))
        models.add(connection, models.FineTuned("ft:mine::x", "mine", "none", "runs/ftjob-1", "0" * 64, "ftjob-1", 1))
    database.close()
    refused = run("remove", "mine", *where)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: mine is needed by 1 fine-tuned model(s) or job(s), such as ft:mine::x.")
    assert run("remove", "mine", "--force", *where).returncode == 0


def test_a_base_that_a_waiting_job_needs_stays(model: Path, where: tuple[str, str]) -> None:
    run("add", str(model), *where)
    database = open_database(DataDir(Path(where[1])).database)
    with database.write() as connection:
        jobs.add(connection, tuning_job("ftjob-1", base="mine", status="queued"))
    database.close()
    assert "such as ftjob-1" in run("remove", "mine", *where).stderr


def test_a_wrong_name_is_one_sentence_and_a_next_step(where: tuple[str, str]) -> None:
    for arguments in (("pull", "no-organization"), ("remove", "nothing"), ("add", "/nowhere")):
        done = run(*arguments, *where)
        assert done.returncode == 1
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr
