"""Every method beside sft, run in this process on the built-in base: what it tells, that it learns, that resuming is exact."""

import pytest
import torch
from peft import PeftModel
from results import timeless
from safetensors.torch import load_file

from tunesmith.data.examples import sides
from tunesmith.errors import InvalidData, InvalidRecipe
from tunesmith.models.artifact import HEAD, read_adapter
from tunesmith.models.loader import load_base
from tunesmith.recipes.method import METHODS as RECIPES
from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder
from tunesmith.train.methods import METHODS

from .oracle import BASE, examples
from .preferences import judged, pairs, write
from .small import Recorder

pytestmark = pytest.mark.slow

CASES = {
    "dpo": {"type": "dpo"},
    "ipo": {"type": "dpo", "loss": "ipo"},
    "simpo": {"type": "dpo", "loss": "simpo"},
    "kto": {"type": "kto"},
    "orpo": {"type": "orpo"},
    "reward": {"type": "reward"},
}
REWARDS = {"rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected"}


def make(root, method, **changes):
    """12 rows, 6 steps, a checkpoint at 3 and 6. Half of the rows are looked at before and after: so few steps teach no more."""
    rows = judged if method["type"] == "kto" else pairs
    numbers = {"epochs": 2, "batch_size": 4, "learning_rate": 0.001}
    recipe = {
        "method": numbers | method, "adapter": {"rank": 4}, "checkpoints": {"every_steps": 3}, "threads": 1,
        "data": {"train": "train.jsonl", "validation": "held.jsonl"}, "evaluation": {"verify": False},
    }
    folder = RunFolder(root).create(parse(recipe | changes))
    write(root / "train.jsonl", rows(12, 1))
    write(root / "held.jsonl", rows(12, 1)[:6])
    folder.order("run", 1)
    return folder


def run(folder, recorder):
    recipe = folder.recipe()
    return METHODS[recipe.method.type](recipe, folder, recorder.tools())


def adapter(folder):
    return load_file(folder.artifacts / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module", params=CASES)
def straight(request, tmp_path_factory):
    method = CASES[request.param]
    folder, recorder = make(tmp_path_factory.mktemp(request.param) / "run", method), Recorder()
    return method, folder, recorder, run(folder, recorder)


def test_there_is_a_function_for_each_method_of_the_recipes():
    assert METHODS.keys() == RECIPES.keys() == {case["type"] for case in CASES.values()} | {"sft"}


def test_a_run_tells_rewards_at_each_step_and_of_the_held_out_rows_before_and_after(straight):
    _, _, recorder, result = straight
    steps, measured = recorder.of("step"), recorder.of("eval")
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all(set(event) >= REWARDS for event in steps + measured)
    assert [event["step"] for event in measured] == [0, 3, 6]
    metrics = result["metrics"]
    assert 0 <= metrics["eval_rewards/accuracies_before"] <= 1
    assert metrics["eval_rewards/accuracies"] == measured[-1]["rewards/accuracies"]
    assert 0 < result["hyperparameters"]["learning_rate"] < 1


def test_what_was_rejected_falls_behind_what_was_chosen(straight):
    metrics = straight[3]["metrics"]
    assert metrics["eval_rewards/margins"] > metrics["eval_rewards/margins_before"]
    assert metrics["eval_loss"] < metrics["eval_loss_before"]


def test_a_paused_run_goes_on_and_ends_bit_for_bit_the_same(straight, tmp_path):
    method, whole, told, result = straight
    folder, first, second = make(tmp_path / "run", method), Recorder(stop_after=2), Recorder()
    assert run(folder, first) is None
    assert timeless(run(folder, second)) == timeless(result)
    assert second.of("resumed") == [{"type": "resumed", "step": 2}]
    mine, theirs = adapter(folder), adapter(whole)
    assert mine.keys() == theirs.keys()
    assert all(mine[name].equal(theirs[name]) for name in theirs)
    assert [step["loss"] for step in first.of("step") + second.of("step")] == [step["loss"] for step in told.of("step")]


def test_before_the_first_step_model_and_reference_are_the_same(straight):
    method, _, recorder, _ = straight
    before = recorder.of("eval")[0]
    if method["type"] == "orpo" or method.get("loss") == "simpo":
        assert before["rewards/margins"] != 0
    else:
        assert (before["rewards/margins"], before["rewards/accuracies"]) == (0.0, 0.5)


def test_a_reward_model_ends_as_a_lora_with_its_head_which_gives_no_answers(tmp_path):
    folder = make(tmp_path / "run", {"type": "reward"})
    result = run(folder, Recorder())
    assert (result["adapter"]["kind"], result["adapter"]["rank"]) == ("reward", 4)
    info = read_adapter(folder.artifacts / "adapter")
    assert info.content_hash == result["adapter"]["content_hash"]
    assert "score" not in info.targets
    tensors = adapter(folder)
    assert tensors[HEAD].shape == (1, 256)
    model = PeftModel.from_pretrained(load_base(BASE, "none", head="score"), str(folder.artifacts / "adapter"))
    held = examples(tmp_path, pairs(12, 1)[:6], folder.recipe())
    scores = [model(input_ids=torch.tensor([row.ids])).logits.item() for pair in held for row in sides(pair)]
    margins = [chosen - rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]
    assert sum(margins) / 6 == pytest.approx(result["metrics"]["eval_rewards/margins"], abs=1e-5)


def test_rows_of_another_method_are_refused_by_name(tmp_path):
    folder = make(tmp_path / "run", {"type": "dpo"})
    write(folder.root / "train.jsonl", judged(4, 1))
    with pytest.raises(InvalidData, match="answers labelled good or bad, which the method dpo cannot use"):
        run(folder, Recorder())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"method": {"type": "dpo", "loss": "simpo", "label_smoothing": 0.1}}, "label_smoothing"),
        ({"method": {"type": "kto", "micro_batch_size": 1}}, "kto needs micro batches of two"),
        ({"method": {"type": "orpo"}, "adapter": {"dropout": 0.1}}, "adapter.dropout must be 0 for orpo"),
        ({"method": {"type": "dpo"}, "data": {"train": "x.jsonl", "rehearsal": 0.2}}, "data.rehearsal"),
        ({"method": {"type": "reward"}, "adapter": {"type": "prompt"}}, "adapter.type must be lora"),
        ({"method": {"type": "reward"}, "adapter": {"use_dora": True}}, "without use_dora, for reward"),
        ({"method": {"type": "sft", "beta": 0.1}}, "method.beta"),
    ],
)
def test_what_a_method_has_no_use_for_is_refused(changes, field):
    with pytest.raises(InvalidRecipe, match=field):
        parse({"data": {"train": "x.jsonl"}} | changes)
