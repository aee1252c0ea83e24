"""What the memory plan says of cases that others have measured, or that people rely on when they rent."""

from dataclasses import replace

import pytest

from tunesmith.plan.gpus import GIB, GPUS
from tunesmith.plan.memory import Step, cache_tokens, needed, peak, training, weights
from tunesmith.plan.shapes import find_shape

SHARE = 0.9
"""Of a GPU's memory that an engine takes (vLLM's default)."""


def gib(name, step):
    return peak(training(find_shape(name), step)).total / GIB


def full(name, tokens, **fields):
    """All weights in pure bf16, as torchtune trains them."""
    shape = find_shape(name)
    return Step(tokens, tokens, tokens, regime="bf16", trained=shape.num_parameters, rank=None, **fields)


def lora(name, tokens, quantization, **fields):
    """LoRA of rank 8 in pure bf16, compiled, chunked loss, layers recomputed and their inputs offloaded: torchtune's."""
    trained = find_shape(name).lora(8)
    return Step(tokens, tokens, tokens, regime="bf16", quantization=quantization, trained=trained, rank=8, recompute="all",
                offload=True, head="compiled", **fields)


@pytest.mark.parametrize(("step", "measured"), [
    (full("Llama-3.2-3B", 8192, head="whole"), 60.0),
    (full("Llama-3.2-3B", 8192, head="compiled", recompute="all"), 24.9),
])
def test_all_weights_of_3b_are_planned_within_three_percent(step, measured):
    assert gib("Llama-3.2-3B", step) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(("name", "tokens", "quantization", "optimizer", "measured"), [
    ("Llama-3.1-8B", 4096, "none", "adamw", 16.2),
    ("Llama-3.1-8B", 4096, "nf4", "adamw", 7.4),
    ("Llama-3.2-3B", 8192, "none", "adamw_8bit", 8.5),
    ("Llama-3.2-3B", 8192, "nf4", "adamw_8bit", 4.6),
])
def test_adapters_are_planned_within_twelve_percent(name, tokens, quantization, optimizer, measured):
    step = lora(name, tokens, quantization, optimizer=optimizer)
    assert gib(name, step) == pytest.approx(measured, rel=0.12)


def room(gpu, count=1):
    return int(SHARE * count * GPUS[gpu].mib * 2**20)


@pytest.mark.parametrize(("quantization", "gpu", "count", "fits"), [
    ("none", "A100-80GB", 2, True), ("none", "A40", 4, True), ("int8", "A100-80GB", 1, True), ("int8", "A40", 2, True),
    ("nf4", "A40", 1, True), ("none", "A100-40GB", 2, False), ("none", "A100-80GB", 1, False), ("int8", "A40", 1, False),
])
def test_70b_is_served_where_people_serve_it(quantization, gpu, count, fits):
    assert (cache_tokens(find_shape("Llama-3.1-70B"), quantization, room(gpu, count)) >= 8192) == fits


def test_70b_in_fp32_needs_280_gb():
    shape = find_shape("Llama-2-70B")
    assert weights(shape, "none", "fp32") == pytest.approx(280e9, rel=0.02)
    assert weights(find_shape("Llama-3.1-70B"), "none", "fp32") == pytest.approx(280e9, rel=0.02)


def test_qlora_of_7b_trains_in_12_gb():
    shape = find_shape("Llama-2-7B")
    step = Step(2048, 2048, 2048, quantization="nf4", trained=shape.lora(16), recompute="all")
    assert needed(training(shape, step)) < GPUS["RTX3060"].mib * 2**20


@pytest.mark.parametrize(("name", "bf16", "int8", "nf4"), [
    ("Llama-2-7B", 12.55, 6.52, 3.60), ("Llama-3.1-8B", 14.96, 8.46, 5.31), ("Llama-3.1-70B", 131.42, 67.67, 36.80),
    ("Mistral-7B-v0.1", 13.49, 6.99, 3.84), ("Qwen2.5-72B", 135.43, 70.04, 38.38), ("Qwen3-32B", 61.02, 31.96, 17.89),
    ("gemma-2-9b", 17.21, 9.46, 5.71), ("pythia-410m", 0.75, 0.47, 0.34),
])
def test_weights_are_as_large_as_they_were_counted(name, bf16, int8, nf4):
    shape = find_shape(name)
    found = [weights(shape, quantization, "bf16") / GIB for quantization in ("none", "int8", "nf4")]
    assert found == pytest.approx([bf16, int8, nf4], rel=0.01, abs=0.006)


def test_recomputing_more_layers_never_takes_more_memory():
    shape = find_shape("Qwen3-8B")
    step = Step(8192, 2048, 8192, trained=shape.lora(16))
    peaks = [peak(training(shape, replace(step, recompute=level))).total for level in ("none", 4, 2, "all")]
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == 4


def test_phases_are_a_maximum_and_not_a_sum():
    phases = training(find_shape("Llama-3.2-3B"), full("Llama-3.2-3B", 8192, head="whole"))
    assert peak(phases).name == "loss"
    assert peak(training(find_shape("Llama-3.2-3B"), full("Llama-3.2-3B", 512, head="whole"))).name == "embedding"
