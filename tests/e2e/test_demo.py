"""The demo keeps what the README says of it, and shuffled answers show that it is learning, not luck."""

import json
import random
from pathlib import Path

import pytest
from conftest import run

import tunesmith
from tunesmith.cli.demo import BATCH_SIZE, EPOCHS, RECIPE, SEED
from tunesmith.paths import SUPPORT_DESK
from tunesmith.recipes.run import merge


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_closes_the_circle_and_its_figures_hold(tmp_path):
    done = run("demo", "--data-dir", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "data/demo/report.json").read_text())
    assert report["before"]["exact_match"] < 0.10
    assert report["after"]["exact_match"] >= 0.80
    assert report["after"]["loss"] < report["before"]["loss"]
    assert report["skills_after"] >= report["skills_before"] - 0.05
    assert report["fine_tuned_model"].startswith("ft:tunesmith/tiny:")
    assert report["seconds"] > 0
    assert report["fine_tuned_model"] in done.stdout


def recipe(train: Path) -> dict:
    """The demo's recipe, on another file."""
    own = {
        "base": "tunesmith/tiny",
        "seed": SEED,
        "method": {"epochs": EPOCHS, "batch_size": BATCH_SIZE},
        "data": {"train": str(train)},
    }
    return merge(own, RECIPE)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_trained_on_shuffled_answers_it_stays_ignorant(tmp_path):
    rows = [json.loads(line)["messages"] for line in (SUPPORT_DESK / "train.jsonl").read_text().splitlines()]
    answers = [row[-1] for row in rows]
    random.Random(1).shuffle(answers)
    shuffled = tmp_path / "shuffled.jsonl"
    lines = [json.dumps({"messages": [*row[:-1], answer]}) for row, answer in zip(rows, answers, strict=True)]
    shuffled.write_text("\n".join(lines) + "\n")
    tunesmith.train(recipe(shuffled), folder=tmp_path / "run")
    measured = tunesmith.evaluate(tmp_path / "run", file=SUPPORT_DESK / "heldout.jsonl")
    assert measured["exact_match"] < 0.20
