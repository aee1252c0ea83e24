"""One answer: what fits on what, for how long and how much, and a reason for every GPU that does not do."""

from dataclasses import replace
from datetime import date

import pytest

from tunesmith.plan import serve
from tunesmith.plan.answer import Question, answer, as_json
from tunesmith.plan.gpus import GPUS
from tunesmith.plan.memory import Step, peak, training
from tunesmith.plan.picture import draw, to_svg
from tunesmith.plan.prices import load
from tunesmith.plan.shapes import find_shape
from tunesmith.plan.trained import trained
from tunesmith.recipes.adapter import FullAdapter, LoraAdapter, PrefixAdapter, PromptAdapter

TODAY = date(2026, 11, 21)
PRICES = load()


def ask(name="Qwen3-8B", adapter=None, quantization="nf4", **fields):
    shape = find_shape(name)
    return answer(Question(shape, trained(shape, adapter or LoraAdapter()), quantization, **fields), PRICES, TODAY)


@pytest.fixture(scope="module")
def qlora():
    return ask()


def test_every_gpu_is_an_option_or_has_a_reason(qlora):
    assert {option.gpu.name for option in qlora.options} | set(qlora.rejected) == set(GPUS)
    assert "bf16" in qlora.rejected["T4"]
    assert not {option.gpu.name for option in qlora.options} & set(qlora.rejected)


def test_what_does_not_fit_says_what_it_needs():
    found = ask("Llama-3.1-405B", FullAdapter(), "none")
    assert found.options == []
    assert "needs" in found.rejected["H200"]
    assert "140.4" in found.rejected["H200"]


def test_options_fit_their_gpus_and_the_cheapest_comes_first(qlora):
    assert all(option.needed_bytes <= option.gpu.mib * 2**20 for option in qlora.options)
    costs = [option.offers[0].usd for option in qlora.options if option.offers]
    assert costs == sorted(costs)
    assert qlora.cheapest == qlora.options[0]


def test_spot_takes_longer_than_on_demand_and_tells_three_scenarios(qlora):
    option = next(option for option in qlora.options if {offer.spot for offer in option.offers} == {True, False})
    spot = next(offer for offer in option.offers if offer.spot)
    assert spot.hours > option.hours
    assert [each.scenario for each in spot.interrupted] == ["none", "typical", "bad"]
    assert spot.usd == pytest.approx(spot.usd_per_hour * spot.hours)


def test_twice_the_rows_take_twice_the_time(qlora):
    twice = answer(replace(qlora.question, rows=2 * qlora.question.rows), PRICES, TODAY)
    one, two = (next(o for o in each.options if o.gpu.name == "A100-80GB" and o.count == 1) for each in (qlora, twice))
    assert two.hours == pytest.approx(2 * one.hours)


def test_all_weights_take_more_memory_than_lora_and_lora_more_than_qlora():
    shape = find_shape("Llama-3.2-3B")
    step = Step(2048, 2048, 2048, trained=shape.lora(16))
    everything = replace(step, trained=shape.num_parameters, rank=None, regime="master")
    needs = [peak(training(shape, each)).total for each in (everything, step, replace(step, quantization="nf4"))]
    assert needs == sorted(needs, reverse=True)


def test_preference_methods_pay_for_two_answers_and_a_reference():
    hours = {method: ask(method=method).fastest.hours for method in ("sft", "kto", "orpo", "dpo")}
    assert hours["sft"] < hours["kto"] < hours["orpo"] < hours["dpo"]


def test_soft_prompts_train_few_numbers():
    shape = find_shape("Qwen3-8B")
    assert trained(shape, PromptAdapter()).parameters == 20 * 4096
    assert trained(shape, PrefixAdapter()).parameters == 20 * 36 * 2 * 8 * 128
    assert trained(shape, LoraAdapter(use_dora=True)).parameters > trained(shape, LoraAdapter()).parameters == shape.lora(16)


def test_json_has_plain_integers_for_what_is_counted(qlora):
    told = as_json(qlora)
    assert type(told["parameters"]) is int
    assert told["parameters"] == 8_190_735_360
    assert all(type(option["needed_bytes"]) is int for option in told["options"])
    assert all(offer["source"] and offer["date"] for option in told["options"] for offer in option["offers"])


def test_the_picture_has_a_bar_for_each_phase_and_a_dot_for_offers(qlora):
    svg = to_svg(draw(qlora))
    for phase in qlora.options[0].phases:
        assert f">{phase.name}</text>" in svg
    assert svg.count("<circle") > 10
    assert f"on {qlora.options[0].gpu.name}, GiB" in svg


def test_serving_names_the_smallest_number_of_gpus_that_does():
    options, rejected = serve.answer(
        find_shape("Llama-3.1-70B"), "none", context=8192, sequences=1, rows=PRICES, today=TODAY
    )
    counts = {option.gpu.name: option.count for option in options}
    assert counts["A100-80GB"] == 2
    assert counts["A40"] == 4
    assert counts["H200"] == 2
    assert "T4" in rejected
