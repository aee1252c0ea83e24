"""What vLLM would refuse is known from a recipe, in agreement with what is refused when the adapter is to be served."""

import pytest

from tunesmith.recipes.adapter import vllm_refuses
from tunesmith.recipes.run import parse
from tunesmith.serving.vllm_adapters import problems
from tunesmith.train.adapters import peft_config


@pytest.mark.parametrize(("adapter", "reason"), [
    ({}, None), ({"rank": 512, "use_rslora": True}, None), ({"use_dora": True}, "DoRA"),
    ({"type": "prompt"}, "virtual tokens"), ({"type": "p_tuning"}, "virtual tokens"), ({"type": "prefix"}, "virtual tokens"),
])
def test_vllm_is_told_of_before_training_as_it_would_say_after(adapter, reason):
    recipe = parse({"adapter": adapter, "data": {"train": "x"}})
    told = vllm_refuses(recipe.adapter, recipe.quantization)
    assert (told is None) == (reason is None)
    assert reason is None or reason in str(told)
    config = peft_config(recipe, None)
    assert bool(problems(config.to_dict() | {"peft_type": config.peft_type.value}, max_rank=512)) == (reason is not None)


def test_a_quantized_base_is_not_vllms_and_a_whole_model_is():
    recipe = parse({"adapter": {"type": "full"}, "data": {"train": "x"}})
    assert vllm_refuses(recipe.adapter, "none") is None
    assert "nf4" in str(vllm_refuses(parse({"data": {"train": "x"}}).adapter, "nf4"))
