"""Every adapter that is not refused computes what PEFT computes: ranks and alphas by pattern, rsLoRA, soft prompts; and what is
refused is refused with the reason."""

import json
from collections.abc import Iterator
from copy import copy
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.engine.engines import Engine, generate, make_prompts, reference, same_tokens, save_base, save_peft
from tunesmith.engine.adapters import Grouping, Lora, Part
from tunesmith.engine.batch import Group
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import read_adapter
from tunesmith.models.catalog import Base

SIZES = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "initializer_range": 0.2, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": 0, "tie_word_embeddings": False,
}
GROUPED = {"num_key_value_heads", "head_dim"}
"""Fields that GPT-NeoX does not have."""
PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False, "task_type": "CAUSAL_LM"}
LORAS: dict[str, dict[str, object]] = {
    "patterns": {
        "rank_pattern": {"q_proj": 2, "mlp.down_proj": 6}, "alpha_pattern": {"v_proj": 20, "layers.1.self_attn.q_proj": 3},
    },
    "rslora": {"use_rslora": True},
    "rslora-patterns": {"use_rslora": True, "rank_pattern": {"up_proj": 9}},
    "two-targets": {"target_modules": ["q_proj", "up_proj"]},
    "dora": {"use_dora": True},
    "dora-patterns": {"use_dora": True, "target_modules": ["q_proj", "o_proj"], "alpha_pattern": {"q_proj": 20}},
    "head": {"target_modules": ["o_proj", "lm_head"]},
}
SOFT: dict[str, PeftConfig] = {
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "p-tuning": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=7, encoder_hidden_size=16),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20),
    "prefix-projected": PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=16
    ),
}
COUNT = 12
MODELS = {
    "lean": (LlamaConfig, LlamaForCausalLM), "lean-neox": (GPTNeoXConfig, GPTNeoXForCausalLM),
    "module": (Gemma2Config, Gemma2ForCausalLM),
}
NEOX = {
    "q_proj": "query_key_value", "v_proj": "query_key_value", "o_proj": "attention.dense", "up_proj": "dense_h_to_4h",
    "down_proj": "dense_4h_to_h", "self_attn": "attention",
}
"""Names of its layers, by Llama's."""


@pytest.fixture(scope="module", params=sorted(MODELS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.manual_seed(4)
    config, model = MODELS[request.param]
    sizes = {name: value for name, value in SIZES.items() if config is not GPTNeoXConfig or name not in GROUPED}
    return save_base(model(config(**sizes)), tmp_path_factory.mktemp(request.param))


def renamed(told: Any, base: Base) -> Any:
    """The same LoRA of GPT-NeoX's layers."""
    if "neox" not in str(base.folder):
        return told
    return json.loads(reduce(lambda text, pair: text.replace(*pair), NEOX.items(), json.dumps(told)))


@pytest.fixture(scope="module")
def engine(base: Base) -> Iterator[Engine]:
    engine = Engine(base)
    yield engine
    engine.core.stop()


@pytest.mark.parametrize("name", sorted(LORAS))
def test_a_lora_with_patterns_equals_peft(base: Base, engine: Engine, tmp_path: Path, name: str) -> None:
    info = save_peft(base, LoraConfig(**{**PLAIN, **renamed(LORAS[name], base)}), tmp_path / name)
    assert read_adapter(Path(info.path)) == info
    serial, model = engine.add(info), reference(base, info)
    for prompt in make_prompts((9, 20), 512):
        theirs = generate(model, prompt, COUNT)
        # Alone, and beside the base so that the adapter's rows are only some.
        for asked in ([(prompt, serial)], [(prompt, serial), (prompt, None)]):
            answers = engine.ask(asked, max_tokens=COUNT, num_logprobs=0)
            same_tokens(answers[0].tokens, theirs)
            assert [item.logprob for item in answers[0].logprobs] == pytest.approx(theirs.logprobs, abs=1e-4)
            assert answers[-1].logprobs != answers[0].logprobs or len(answers) == 1


@pytest.mark.filterwarnings("ignore:Position ids are not supported for parameter efficient tuning")
@pytest.mark.parametrize("name", sorted(SOFT))
def test_a_soft_prompt_equals_peft(base: Base, engine: Engine, tmp_path: Path, name: str) -> None:
    info = save_peft(base, copy(SOFT[name]), tmp_path / name)
    assert (info.num_virtual, info.kind) == (SOFT[name].num_virtual_tokens, "prefix" if "prefix" in name else "prompt")
    assert read_adapter(Path(info.path)) == info
    serial, model = engine.add(info), reference(base, info)
    prompts = make_prompts((1, 40, 12), 512)
    mixed = engine.ask([(prompt, who) for prompt in prompts for who in (serial, None)], max_tokens=COUNT, num_logprobs=0)
    for prompt, answer in zip(prompts, mixed[::2], strict=True):
        theirs = generate(model, prompt, COUNT)
        same_tokens(answer.tokens, theirs)
        assert [item.logprob for item in answer.logprobs] == pytest.approx(theirs.logprobs, abs=1e-4)
    # A prompt that was computed before is found again, behind its soft prompt.
    for _ in range(2):
        again = engine.ask([(prompts[1], serial)], max_tokens=COUNT, root=name.encode())[0]
        assert again.tokens == mixed[2].tokens
    assert again.num_cached_prompt > 0


def test_patterns_are_part_of_the_content_hash(base: Base, tmp_path: Path) -> None:
    made = save_peft(base, LoraConfig(**PLAIN), tmp_path / "plain")
    config = tmp_path / "plain" / "adapter_config.json"
    pattern = json.dumps(renamed({"alpha_pattern": {"q_proj": 99}}, base)).strip("{}")
    config.write_text(config.read_text().replace('"alpha_pattern": {}', pattern + "}"))
    with pytest.raises(InvalidRequest, match="was changed"):
        read_adapter(tmp_path / "plain")
    assert not made.scalings


@pytest.mark.parametrize(("changes", "reason"), [
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"bias": "all"}, "bias"),
])
def test_what_is_not_served_is_refused_with_the_reason(
    base: Base, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        save_peft(base, LoraConfig(**{**PLAIN, **changes}), tmp_path / "odd")


def test_an_adapter_with_a_number_that_is_none_is_refused(base: Base, engine: Engine, tmp_path: Path) -> None:
    info = save_peft(base, LoraConfig(**PLAIN), tmp_path / "broken")
    path = tmp_path / "broken" / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(InvalidRequest, match="not finite"):
        engine.add(info)


def test_all_ways_of_mixing_compute_the_same() -> None:
    torch.manual_seed(0)
    grouping = Grouping()
    lora = Lora(grouping, 24)
    for serial, rank in ((1, 3), (2, 5)):
        sizes = ((0, 16, 0.5), (16, 8, 2.0))
        lora.add(serial, [
            (first, Part(torch.randn(rank, 8), torch.randn(out, rank), scaling)) for first, out, scaling in sizes
        ])
    x, groups = torch.randn(9, 8), [Group(1, 1, 4), Group(2, 4, 6), Group(3, 6, 8)]
    expected = torch.zeros(9, 24)
    for serial, first, end in groups[:2]:
        expected[first:end] = x[first:end] @ lora.updates[serial].a @ lora.updates[serial].b
    for num_tokens in (9, 1000):
        # Few tokens: all adapters at once; many: one after the other.
        more = num_tokens - 9
        grouping.set(groups, num_tokens)
        y = lora.apply(torch.zeros(num_tokens, 24), torch.nn.functional.pad(x, (0, 0, 0, more)))
        assert torch.allclose(y[:9], expected, atol=1e-5)
        assert not y[9:].any()
    grouping.rows = [(1, slice(None))]
    whole = lora.apply_padded(torch.zeros(1, 9, 24), x[None])
    assert torch.allclose(whole[0], x @ lora.updates[1].a @ lora.updates[1].b, atol=1e-5)
    lora.remove(1)
    grouping.set(groups[:2], 9)
    expected[1:4] = 0
    assert torch.allclose(lora.apply(torch.zeros(9, 24), x), expected, atol=1e-5)
