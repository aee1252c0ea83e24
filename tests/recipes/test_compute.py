"""The machine's part of a recipe: what is taken, and that nothing which cannot run is passed over."""

import pytest

from tunesmith.errors import InvalidRecipe
from tunesmith.recipes.compute import ComputeRecipe, refuse
from tunesmith.recipes.run import parse

DATA = {"data": {"train": "rows.jsonl"}}


def test_a_recipe_that_says_nothing_leaves_the_choice_to_the_preflight():
    compute = parse(DATA).compute
    assert (compute.packing, compute.packing_length, compute.recompute) == (None, None, None)
    assert (compute.optimizer, compute.offload_activations, compute.processes) == ("adamw", False, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("packing_length", 10), ("recompute", "some"), ("recompute", 1), ("optimizer", "sgd"), ("processes", 0), ("fast", 1)],
)
def test_a_wrong_value_is_refused_by_its_path(field, value):
    with pytest.raises(InvalidRecipe) as refused:
        parse(DATA | {"compute": {field: value}})
    assert refused.value.param.startswith(f"compute.{field}")


@pytest.mark.parametrize(
    ("compute", "adapter", "num_gpus", "param"),
    [
        ({"optimizer": "paged_adamw_8bit"}, "lora", 0, "compute.optimizer"),
        ({"offload_activations": True}, "lora", 0, "compute.offload_activations"),
        ({"offload_activations": True, "recompute": "none"}, "lora", 1, "compute.offload_activations"),
        ({"packing": True}, "prompt", 1, "compute.packing"),
        ({"packing": True}, "p_tuning", 0, "compute.packing"),
        ({"recompute": "all"}, "prefix", 1, "compute.recompute"),
        ({"recompute": 2}, "prefix", 0, "compute.recompute"),
        ({"processes": 3}, "lora", 2, "compute.processes"),
    ],
)
def test_what_cannot_run_is_refused_by_its_field_with_a_hint(compute, adapter, num_gpus, param):
    with pytest.raises(InvalidRecipe) as refused:
        refuse(ComputeRecipe(**compute), adapter=adapter, num_gpus=num_gpus)
    assert refused.value.param == param
    assert refused.value.message.startswith(param)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("compute", "adapter", "num_gpus"),
    [
        ({}, "prefix", 0),
        ({"optimizer": "adamw_8bit", "recompute": "all", "packing": True, "processes": 2}, "lora", 0),
        ({"optimizer": "paged_adamw_8bit", "offload_activations": True, "processes": 2}, "lora", 2),
    ],
)
def test_what_can_run_is_let_through(compute, adapter, num_gpus):
    refuse(ComputeRecipe(**compute), adapter=adapter, num_gpus=num_gpus)
