"""A soft prompt finds a skill that the base has: asked without its instruction, the base does something else."""

import json
import random
from pathlib import Path

import pytest

from tunesmith.cli.eval import evaluate
from tunesmith.data.skills import generate
from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder
from tunesmith.train import sft

from .small import Recorder

pytestmark = pytest.mark.long

SKILL = "capitalize"
NUM_TRAIN, NUM_ASKED = 640, 60


def bare(count: int, seed: int) -> list[tuple[str, str]]:
    """Questions of the skill without "Capitalize: ", none of them twice, and what is right."""
    found: dict[str, str] = {}
    for item in generate(SKILL, 5 * count, seed):
        found.setdefault(item.messages[-1]["content"].split(": ", 1)[1], item.answer["content"])
    return list(found.items())[:count]


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    lines = [
        json.dumps({"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": say}]}) + "\n"
        for ask, say in rows
    ]
    path.write_text("".join(lines))


def accuracy(model: str | Path, asked: Path) -> float:
    """As served: the share of answers that are right to the letter."""
    return float(evaluate(model, file=asked, data_dir=asked.parent, threads=1)["exact_match"])


def trained(root: Path, kind: str, rows: list[tuple[str, str]]) -> Path:
    folder = RunFolder(root).create(parse({
        "method": {"epochs": 5, "batch_size": 16}, "adapter": {"type": kind}, "data": {"train": "train.jsonl"}, "threads": 1,
        "checkpoints": {"every_steps": 1000},
    }))
    write(root / "train.jsonl", rows)
    folder.order("run", 1)
    assert sft.run(folder.recipe(), folder, Recorder().tools()) is not None
    return root


@pytest.mark.parametrize("kind", ["prompt", "p_tuning", "prefix"])
def test_a_soft_prompt_beats_the_base_by_30_points_on_a_skill_asked_without_its_instruction(tmp_path, kind):
    asked = tmp_path / "asked.jsonl"
    seen = bare(NUM_TRAIN, 1)
    write(asked, [row for row in bare(2 * NUM_ASKED, 3) if row not in seen][:NUM_ASKED])
    answers = [say for _, say in seen]
    random.Random(0).shuffle(answers)
    shuffled = [(ask, say) for (ask, _), say in zip(seen, answers, strict=True)]
    scores = {
        "base": accuracy("tunesmith/tiny", asked),
        "tuned": accuracy(trained(tmp_path / "tuned", kind, seen), asked),
        "control": accuracy(trained(tmp_path / "control", kind, shuffled), asked),
    }
    print(kind, {name: round(score, 3) for name, score in scores.items()})
    assert scores["tuned"] >= scores["base"] + 0.3
    assert scores["control"] <= scores["base"] + 0.05
