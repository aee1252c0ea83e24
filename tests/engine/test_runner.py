"""What is served is what was trained: tokens equal `generate`, log-probabilities equal PEFT's forward, alone and mixed."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from tests.engine.engines import Engine, save_base
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.models.loader import load_base
from tunesmith.types import Quantization

Make = Callable[..., AdapterInfo]
LINEARS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
LENGTHS = (1, 40, 7, 90, 23, 3, 64, 12)


def prompts(count: int = len(LENGTHS)) -> list[list[int]]:
    dice = random.Random(5)
    return [[dice.randrange(4000) for _ in range(LENGTHS[n % len(LENGTHS)])] for n in range(count)]


@pytest.fixture(scope="module", params=["none", "nf4"])
def engine(request: pytest.FixtureRequest, small_base: Base) -> Iterator[Engine]:
    engine = Engine(small_base, request.param)
    yield engine
    engine.core.stop()


@pytest.fixture(scope="module")
def precision(engine: Engine) -> str:
    return engine.runner.adapters._quantization


@pytest.fixture(scope="module")
def reference(small_base: Base, precision: Quantization) -> torch.nn.Module:
    """The same base by the trainer's road."""
    return load_base(small_base, precision)


@pytest.fixture(scope="module")
def adapters(engine: Engine, precision: str, make_adapter: Make) -> list[tuple[int, AdapterInfo]]:
    """Serial number and adapter: three of different seeds and ranks."""
    made = [make_adapter(1, precision), make_adapter(2, precision), make_adapter(3, precision, rank=8)]
    return [(engine.core.add_adapter(info).result(timeout=60), info) for info in made]


def generate(model: torch.nn.Module, prompt: list[int], count: int = 24) -> list[int]:
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    whole = model.generate(ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False)
    return whole[0, len(prompt) :].tolist()


def test_greedy_tokens_equal_generate_whoever_else_is_in_the_batch(engine: Engine, reference: torch.nn.Module) -> None:
    asked = prompts()
    answers = engine.ask([(prompt, None) for prompt in asked])
    # generate is told to make 24 tokens too: it bans the end token until then, and no answer here has one.
    assert not any(4025 in answer.tokens for answer in answers)
    assert [answer.tokens for answer in answers] == [generate(reference, prompt) for prompt in asked]


def test_an_adapters_tokens_equal_generate_with_peft(
    engine: Engine, small_base: Base, precision: Quantization, adapters: list[tuple[int, AdapterInfo]]
) -> None:
    base_tokens = [answer.tokens for answer in engine.ask([(prompt, None) for prompt in prompts()])]
    for serial, info in adapters:
        tuned = PeftModel.from_pretrained(load_base(small_base, precision), info.path)
        answers = [answer.tokens for answer in engine.ask([(prompt, serial) for prompt in prompts()])]
        assert answers == [generate(tuned, prompt) for prompt in prompts()]
        assert answers != base_tokens


def test_log_probabilities_equal_peft_forward(
    engine: Engine, small_base: Base, precision: Quantization, adapters: list[tuple[int, AdapterInfo]]
) -> None:
    serial, info = adapters[0]
    tuned = PeftModel.from_pretrained(load_base(small_base, precision), info.path).train()
    for prompt in prompts()[1:4]:
        # In training mode and with gradients: the very operations that computed the loss.
        expected = torch.log_softmax(tuned(torch.tensor([prompt])).logits[0], -1)
        told = engine.ask([(prompt, serial)], max_tokens=0, num_logprobs=0, prompt_logprobs=True)[0].logprobs
        assert [item.token for item in told] == prompt
        assert told[0].logprob is None
        for at, item in enumerate(told[1:]):
            assert item.logprob == pytest.approx(float(expected[at, item.token]), abs=2e-4)


def test_mixed_adapters_answer_as_they_do_alone(engine: Engine, adapters: list[tuple[int, AdapterInfo]]) -> None:
    serials = [None, *(serial for serial, _ in adapters)]
    asked = [(prompt, serials[n % len(serials)]) for n, prompt in enumerate(prompts(24))]
    together = [answer.tokens for answer in engine.ask(asked)]
    alone = [engine.ask([one])[0].tokens for one in asked]
    assert together == alone


def test_more_requests_than_slots_and_prompts_longer_than_a_chunk_are_all_answered(
    engine: Engine, reference: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = type(engine.runner.limits)(max_sequences=3, max_cache_tokens=1024, max_prefill_rows=2, max_chunk=16)
    monkeypatch.setattr(engine.core._scheduler, "limits", small)
    answers = engine.ask([(prompt, None) for prompt in prompts()])
    assert [answer.tokens for answer in answers] == [generate(reference, prompt) for prompt in prompts()]


def test_prompt_log_probabilities_are_the_same_in_chunks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(prompt, None) for prompt in prompts()]
    wanted = {"max_tokens": 2, "num_logprobs": 2, "prompt_logprobs": True}
    whole = engine.ask(asked, **wanted)
    monkeypatch.setattr(engine.core._scheduler, "limits", type(engine.runner.limits)(max_chunk=8))
    pieces = engine.ask(asked, **wanted)
    for one, other, (prompt, _) in zip(whole, pieces, asked, strict=True):
        assert [item.token for item in one.logprobs] == prompt + one.tokens
        assert [item.token for item in other.logprobs] == prompt + other.tokens
        values = [[item.logprob or 0.0 for item in answer.logprobs] for answer in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_the_same_seed_draws_the_same_whatever_else_is_in_the_batch(engine: Engine) -> None:
    prompt = prompts()[1]
    alone = engine.ask([(prompt, None)], temperature=1.0, top_p=0.9, seed=7)[0].tokens
    together = engine.ask([(prompt, None) for _ in range(5)], temperature=1.0, top_p=0.9, seed=7)
    assert all(answer.tokens == alone for answer in together)
    assert engine.ask([(prompt, None)], temperature=1.0, top_p=0.9, seed=8)[0].tokens != alone
    free = engine.ask([(prompt, None) for _ in range(4)], temperature=1.0)
    assert len({tuple(answer.tokens) for answer in free}) > 1


def test_an_adapter_of_another_base_or_precision_is_refused(engine: Engine, precision: str, make_adapter: Make) -> None:
    other = make_adapter(1, "nf4" if precision == "none" else "none")
    with pytest.raises(InvalidRequest, match="trained on"):
        engine.core.add_adapter(other).result(timeout=60)
    foreign = AdapterInfo(**(make_adapter(1, precision).__dict__ | {"base_revision": "0" * 64}))
    with pytest.raises(InvalidRequest, match="another revision"):
        engine.core.add_adapter(foreign).result(timeout=60)


def test_a_dropped_adapter_leaves_nothing_on_the_model(engine: Engine, precision: str, make_adapter: Make) -> None:
    serial = engine.core.add_adapter(make_adapter(9, precision)).result(timeout=60)
    engine.core.drop_adapter(serial)
    engine.ask([(prompts()[0], None)])
    loras = {target.lora for name in LINEARS if (target := engine.runner.model.find(f"model.layers.0.{name}"))}
    assert loras
    assert not any(serial in lora.updates for lora in loras)


def test_another_architecture_is_served_by_the_same_code(tmp_path) -> None:
    torch.manual_seed(1)
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=4096, initializer_range=0.2)
    base = save_base(GPT2LMHeadModel(config), tmp_path)
    engine = Engine(base, "none")
    try:
        asked = [prompt[:60] for prompt in prompts()]
        answers = engine.ask([(prompt, None) for prompt in asked])
        reference = load_base(base, "none")
        assert [answer.tokens for answer in answers] == [generate(reference, prompt) for prompt in asked]
    finally:
        engine.core.stop()


def test_an_embedding_is_the_mean_of_the_last_hidden_states(
    engine: Engine, reference: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [prompt for prompt in prompts() if len(prompt) > 1]
    monkeypatch.setattr(engine.core._scheduler, "limits", replace(engine.runner.limits, max_chunk=8))
    answers = engine.ask([(prompt, None) for prompt in asked], max_tokens=0, embed=True)
    for prompt, answer in zip(asked, answers, strict=True):
        hidden = reference.model(torch.tensor([prompt])).last_hidden_state[0].mean(0)
        assert torch.allclose(torch.tensor(answer.embedding), hidden, rtol=1e-4, atol=1e-5)
