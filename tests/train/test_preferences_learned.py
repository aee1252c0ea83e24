"""Every method that learns a preference learns one that the base does not have, and learns the contrary from swapped pairs.

What the rows are, preferences.py says. Minutes each: `make test-long`. The figures stand in docs/results.md.
"""

import pytest

from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder
from tunesmith.train.methods import METHODS

from .preferences import judged, pairs, write
from .small import Recorder

pytestmark = pytest.mark.long

CASES = {
    "dpo": {"type": "dpo", "learning_rate": 0.001},
    "ipo": {"type": "dpo", "loss": "ipo", "learning_rate": 0.001},
    "simpo": {"type": "dpo", "loss": "simpo", "learning_rate": 0.001},
    "kto": {"type": "kto", "learning_rate": 0.001},
    "orpo": {"type": "orpo", "learning_rate": 0.003},
    "reward": {"type": "reward", "learning_rate": 0.002},
}
"""Learning rates are higher than by default, so that two epochs suffice."""


def accuracies(root, method, *, swapped):
    """Share of held-out pairs that are told right, before and after; what is held out is never swapped."""
    make, count = (judged, 1600) if method["type"] == "kto" else (pairs, 1280)
    recipe = {
        "method": {"epochs": 2, "batch_size": 16} | method, "data": {"train": "train.jsonl", "validation": "held.jsonl"},
        "evaluation": {"verify": False},
    }
    folder = RunFolder(root).create(parse(recipe))
    write(root / "train.jsonl", make(count, 1, swapped=swapped))
    write(root / "held.jsonl", make(150, 2))
    folder.order("run", 1)
    found = METHODS[method["type"]](folder.recipe(), folder, Recorder().tools())
    before, after = (found["metrics"][f"eval_rewards/accuracies{ending}"] for ending in ("_before", ""))
    print(f"\n{root.name} swapped={swapped}: {before:.3f} -> {after:.3f}")
    return before, after


@pytest.mark.parametrize("name", CASES)
def test_a_preference_is_learned_for_rows_never_seen_and_the_contrary_from_swapped_pairs(tmp_path, name):
    before, after = accuracies(tmp_path / name, CASES[name], swapped=False)
    assert 0.35 <= before <= 0.65
    assert after >= 0.85
    _, contrary = accuracies(tmp_path / f"{name}-swapped", CASES[name], swapped=True)
    assert contrary <= 0.35
