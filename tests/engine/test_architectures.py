"""Every architecture that is promised answers as `model.generate` does: base and adapters, alone and mixed, with prefix hits, in
chunks, past the sliding window."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig

from tests.engine.engines import Engine, generate, make_prompts, reference, same_tokens, save_base, save_peft
from tunesmith.models.catalog import Base

COMMON = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "head_dim": 16}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
SHAPES: dict[str, tuple[str, dict[str, object], str]] = {
    "llama": ("Llama", GROUPED, "lean"),
    "llama3-rope": ("Llama", {**GROUPED, "attention_bias": True, "mlp_bias": True, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}, "lean"),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": 8}, "lean"),
    "qwen2": ("Qwen2", {**GROUPED, "use_sliding_window": True, **SLIDING}, "lean"),
    "qwen3": ("Qwen3", {**GROUPED, "tie_word_embeddings": True}, "lean"),
    "gemma2": ("Gemma2", {**GROUPED, **SLIDING, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}, "module"),
    "gemma3": ("Gemma3", {**GROUPED, **SLIDING, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}, "module"),
    "phi3": ("Phi3", {**COMMON, "num_key_value_heads": 2, "sliding_window": 8}, "module"),
    "gpt-neox": ("GPTNeoX", COMMON, "lean"),
    "gpt-neox-in-turn": ("GPTNeoX", {**COMMON, "use_parallel_residual": False, "attention_bias": False,
        "hidden_act": "gelu_fast", "tie_word_embeddings": True, "rope_parameters": {
            "rope_type": "linear", "rope_theta": 500.0, "factor": 2.0, "partial_rotary_factor": 1.0}}, "lean"),
    "gpt-neox-relu": ("GPTNeoX", {**COMMON, "hidden_size": 48, "hidden_act": "relu"}, "module"),
}
"""Name -> transformers' class, its shape, how it is computed."""
LENGTHS = (1, 30, 7, 45)
PREFIX = 32
COUNT = 16


@pytest.fixture(scope="module", params=sorted(SHAPES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(name: str, tmp_path_factory: pytest.TempPathFactory) -> Base:
    family, shape, _ = SHAPES[name]
    config = getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")(**shape)
    torch.manual_seed(3)
    return save_base(getattr(transformers, f"{family}ForCausalLM")(config), tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def engine(base: Base):
    engine = Engine(base)
    yield engine
    engine.core.stop()


@pytest.fixture(scope="module")
def adapters(base: Base, tmp_path_factory: pytest.TempPathFactory, engine: Engine):
    """(serial, what generate computes with): no adapter, and two of different ranks."""
    folder = tmp_path_factory.mktemp("adapters")
    configs = [LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear", init_lora_weights=False) for rank in (4, 8)]
    infos = [save_peft(base, config, folder / str(n), seed=n) for n, config in enumerate(configs)]
    return [(None, reference(base)), *((engine.add(info), reference(base, info)) for info in infos)]


def test_tokens_and_log_probabilities_equal_generate(name: str, engine: Engine, adapters) -> None:
    assert engine.runner.mode == SHAPES[name][2]
    prompts = make_prompts(LENGTHS, 512)
    expected = {serial: [generate(model, prompt, COUNT) for prompt in prompts] for serial, model in adapters}
    asked = [(prompt, serial) for serial, _ in adapters for prompt in prompts]
    wanted = [answer for serial, _ in adapters for answer in expected[serial]]
    ways: dict[str, Callable[[], list]] = {
        "mixed": lambda: engine.ask(asked, max_tokens=COUNT, num_logprobs=0),
        "alone": lambda: [engine.ask([one], max_tokens=COUNT, num_logprobs=0)[0] for one in asked[::3]],
    }
    ties = 0
    for way, answers in ((way, ask()) for way, ask in ways.items()):
        for ours, theirs in zip(answers, wanted if way == "mixed" else wanted[::3], strict=True):
            if same_tokens(ours.tokens, theirs):
                assert [item.logprob for item in ours.logprobs] == pytest.approx(theirs.logprobs, abs=1e-4)
            else:
                ties += 1
    assert ties <= 2
    assert len({tuple(answer.tokens) for answer in wanted}) > len(wanted) // 2


def test_prefix_hits_and_chunks_change_nothing(engine: Engine, adapters, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = make_prompts((PREFIX + 3, 5, 9, 2), 512, seed=8)
    prompts = [first, *(first[:PREFIX] + other for other in others)]
    expected = {serial: [generate(model, prompt, COUNT) for prompt in prompts] for serial, model in adapters}
    monkeypatch.setattr(engine.core._scheduler, "limits", replace(engine.runner.limits, max_chunk=10))
    asked = [(prompt, serial) for prompt in prompts for serial, _ in adapters]
    engine.ask(asked[: len(adapters)], root=b"root", max_tokens=COUNT)
    for (prompt, serial), answer in zip(asked, engine.ask(asked, root=b"root", max_tokens=COUNT), strict=True):
        same_tokens(answer.tokens, expected[serial][prompts.index(prompt)])
        assert answer.num_cached_prompt == PREFIX


def test_what_needs_more_than_keys_and_values_is_served_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = transformers.MambaConfig(
        vocab_size=512, hidden_size=32, state_size=4, num_hidden_layers=2, max_position_embeddings=128, initializer_range=0.2,
    )
    folder = tmp_path / "mamba"
    base = save_base(transformers.MambaForCausalLM(config), folder)
    engine = Engine(base)
    try:
        assert (engine.runner.mode, engine.runner.limits.max_sequences, engine.runner.limits.num_blocks) == ("single", 1, 0)
        prompts = make_prompts(LENGTHS, 512)
        model = reference(base)
        for answer, prompt in zip(engine.ask([(prompt, None) for prompt in prompts], max_tokens=COUNT), prompts, strict=True):
            same_tokens(answer.tokens, generate(model, prompt, COUNT))
    finally:
        engine.core.stop()
