"""Time follows from FLOPs, and FLOPs from what is computed: frozen weights need no gradient, recomputed layers a second pass."""

import pytest

from tunesmith.plan.gpus import GPUS
from tunesmith.plan.hours import forward_flops, tokens_per_second, training_flops, utilisation
from tunesmith.plan.shapes import find_shape

SHAPE = find_shape("Llama-3.1-8B")
N = SHAPE.multiplied


def per_token(**fields):
    return training_flops(SHAPE, 1, **{"trained": 0, "all_weights": False, "scored": 0} | fields) / N


def test_lora_takes_four_n_to_six_n_by_recompute_level():
    assert per_token() == pytest.approx(4, abs=0.01)
    assert per_token(recompute="all") == pytest.approx(6, abs=0.01)
    assert per_token(recompute=2) == pytest.approx(5, abs=0.01)


def test_all_weights_take_six_n_to_eight_n():
    assert per_token(all_weights=True) == pytest.approx(6, abs=0.01)
    assert per_token(all_weights=True, recompute="all") == pytest.approx(8, abs=0.01)


def test_a_reference_is_one_forward_pass_more():
    assert per_token(references=1) - per_token() == pytest.approx(2, abs=0.01)


def test_attention_grows_with_the_rows_length_but_not_beyond_a_window():
    assert forward_flops(SHAPE, 8192) > forward_flops(SHAPE, 2048)
    windowed = find_shape("Mistral-7B-v0.1")
    assert forward_flops(windowed, 16384) == forward_flops(windowed, 32768)


@pytest.mark.parametrize(("model", "gpus", "measured", "share"), [
    ("Llama-3.2-3B", 1, 7075, 0.49), ("Llama-3.1-70B", 8, 3497, 0.60),
])
def test_shares_of_the_peak_are_those_that_published_runs_reached(model, gpus, measured, share):
    """torchtune on A100: all weights of 3B, eager, rows of 4,096; LoRA of 70B on eight, compiled and recomputed, rows of
    2,048."""
    shape, whole = find_shape(model), model.endswith("3B")
    flops = training_flops(
        shape, 4096 if whole else 2048, trained=0, all_weights=whole, recompute="none" if whole else "all",
    )
    assert tokens_per_second(GPUS["A100-80GB"], flops, share=share, gpus=gpus) == pytest.approx(measured, rel=0.05)


def test_old_gpus_and_several_gpus_reach_less_of_their_peak():
    assert utilisation(GPUS["T4"], quantization="none") < utilisation(GPUS["A100-80GB"], quantization="none")
    both = [utilisation(GPUS["L40S"], quantization="none", gpus=2, sharded=sharded) for sharded in (True, False)]
    assert both == sorted(both)
    assert both[1] < utilisation(GPUS["L40S"], quantization="none")
