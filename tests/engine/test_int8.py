"""int8 weights say nearly what float32 says, whichever product computes them."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from tests.engine.engines import Engine, make_prompts, save_base
from tunesmith.data.skills import BANDS, SKILLS
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.engine import int8
from tunesmith.engine.int8 import PACKED_ROWS, Int8Weight, WideInt8Weight, int8_weight
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base, find_base

MOST_NATS = 0.02
ITEMS = 3
"""Of each skill that the base was taught."""


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Engine, Engine]]:
    base = find_base("tunesmith/tiny")
    both = Engine(base), Engine(base, quantize="int8")
    yield both
    for engine in both:
        engine.core.stop()


def test_answers_have_nearly_the_log_probabilities_of_float32(engines: tuple[Engine, Engine]) -> None:
    exact, small = engines
    tokenizer = load_tokenizer(exact.runner.base.folder)
    dice = random.Random(500_000)
    items = [SKILLS[skill](dice) for skill in BANDS["kept"] for _ in range(ITEMS)]
    prompts = [
        list(tokenizer.apply_chat_template(item.messages, add_generation_prompt=True, return_dict=False)) for item in items
    ]
    answers = exact.ask([(prompt, None) for prompt in prompts], max_tokens=16)
    # What float32 answers is read by both as a prompt: its tokens' log-probabilities, decoded and in pieces alike.
    whole = [prompt + answer.tokens for prompt, answer in zip(prompts, answers, strict=True)]
    told = [
        engine.ask([(tokens, None) for tokens in whole], max_tokens=0, num_logprobs=0, prompt_logprobs=True)
        for engine in (exact, small)
    ]
    apart = [
        abs(one.logprob - other.logprob)
        for prompt, first, second in zip(prompts, *told, strict=True)
        for one, other in zip(first.logprobs[len(prompt) :], second.logprobs[len(prompt) :], strict=True)
    ]
    assert 0 < sum(apart) / len(apart) <= MOST_NATS


def test_few_rows_and_many_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight = Int8Weight(torch.randn(300, 64))
    x = torch.randn(PACKED_ROWS + 1, 64)
    many, few = weight(x), weight(x[:4])
    assert torch.allclose(many[:4], few, atol=0.2, rtol=0.02)
    monkeypatch.setattr(int8, "_packed_product", None)
    assert torch.allclose(weight(x[:4]), many[:4], atol=1e-4)


def test_a_weight_is_within_half_a_step_of_its_own() -> None:
    torch.manual_seed(0)
    plain = torch.randn(20, 64)
    back = Int8Weight(plain)(torch.eye(64).repeat(2, 1))[:64].t()
    steps = plain.abs().amax(1, keepdim=True) / 127
    assert ((back - plain).abs() <= steps * 0.51 + steps * 127 / 256).all()


@pytest.mark.skipif(int8._whole_product is None, reason="this processor has no VNNI")
def test_a_wide_weight_is_multiplied_in_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight = torch.randn(300, 64)
    weight[:, 5] = 9  # sums that instructions of sixteen bits would cut off
    x = torch.randn(60, 64)
    x[:, 5], x[3], x[4] = 50, 0, float("nan")
    exact = Int8Weight(weight)(x)
    monkeypatch.setattr(int8, "WIDE", weight.numel())
    wide = int8_weight(weight)
    assert isinstance(wide, WideInt8Weight)
    for count in (1, 8, 60):
        found = wide(x[:count])
        fine = [n for n in range(count) if n != 4]
        assert float((found[fine] - exact[fine]).abs().max()) < 1e-4 * float(exact[fine].abs().max())
        assert count < 5 or bool(found[4].isnan().all())
    assert not found[3].any()


def test_adapters_work_on_it_and_other_architectures_too(
    small_base: Base, make_adapter: Callable[..., AdapterInfo], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )
    for base, mode in ((small_base, "lean"), (save_base(Phi3ForCausalLM(config), tmp_path), "module")):
        exact, small = Engine(base), Engine(base, quantize="int8")
        asked: list[tuple[list[int], int | None]] = [(prompt, None) for prompt in make_prompts((9, 30), 512)]
        if mode == "lean":
            info = make_adapter(1)
            asked += [(prompt, exact.add(info)) for prompt, _ in asked[:1]]
            small.add(info)
        told = [engine.ask(asked, max_tokens=0, num_logprobs=0, prompt_logprobs=True) for engine in (exact, small)]
        for first, second in zip(*told, strict=True):
            pairs = list(zip(first.logprobs[1:], second.logprobs[1:], strict=True))
            assert sum(abs(one.logprob - other.logprob) for one, other in pairs) / len(pairs) < 0.15
        assert small.runner.mode == mode
        for engine in (exact, small):
            engine.core.stop()
