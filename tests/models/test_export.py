"""A merged model computes what base and adapter compute, or is not written; a chat template is told to Ollama, or refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig, PromptTuningConfig, get_peft_model

from tunesmith.errors import InvalidRequest
from tunesmith.models import ollama
from tunesmith.models.artifact import AdapterInfo, save_adapter
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.export import copy_adapter, merge, stored_dtype
from tunesmith.models.loader import load_base
from tunesmith.models.whole import read_trained
from tunesmith.recipes.run import Recipe

PROMPTS = [list(range(10, 40)), list(range(300, 330))]
PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Model (has|with) `tie_word_embeddings=True`")


@pytest.fixture(scope="module")
def base() -> Base:
    return find_base("tunesmith/tiny")


def saved(base: Base, config: PeftConfig, folder: Path, quantization: str = "none") -> AdapterInfo:
    torch.manual_seed(0)
    model = get_peft_model(load_base(base, "none"), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.03)
    return save_adapter(model, folder, base, Recipe.model_validate(
        {"base": base.id, "quantization": quantization, "data": {"train": "none.jsonl"}}
    ))


@pytest.mark.parametrize("changes", [{}, {"use_dora": True, "use_rslora": True}])
def test_a_merged_model_is_base_and_adapter_and_a_base_of_its_own(base: Base, tmp_path: Path, changes: dict[str, bool]) -> None:
    saved(base, LoraConfig(**PLAIN, **changes), tmp_path / "adapter")
    merged = merge(tmp_path / "adapter", tmp_path / "merged", base, PROMPTS)
    assert (merged.dtype, merged.drift) == ("float32", None) == (stored_dtype(base), None)
    assert merged.worst < 1e-3
    assert read_trained(tmp_path / "merged") == merged.info
    assert find_base(str(tmp_path / "merged")).revision == merged.info.content_hash != base.revision


def test_weights_are_written_in_16_bits_and_the_price_is_told(base: Base, tmp_path: Path) -> None:
    saved(base, LoraConfig(**PLAIN), tmp_path / "adapter", "nf4")
    merged = merge(tmp_path / "adapter", tmp_path / "merged", base, PROMPTS, dtype="bfloat16")
    assert 1e-3 < merged.mean < 5e-2
    # It was trained on NF4, and what it was merged into is not that.
    assert merged.drift is not None
    assert merged.drift > merged.mean
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "merged" / "model.safetensors").stat().st_size < 0.6 * (base.folder / "model.safetensors").stat().st_size


def test_a_merge_that_computes_something_else_is_refused_and_leaves_nothing(base: Base, tmp_path: Path) -> None:
    # The head of this base is its embedding: what is merged into one changes the other.
    saved(base, LoraConfig(**PLAIN | {"target_modules": ["lm_head"]}), tmp_path / "adapter")
    with pytest.raises(InvalidRequest, match="is not base and adapter"):
        merge(tmp_path / "adapter", tmp_path / "merged", base, PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_soft_prompt_and_another_base_are_refused(base: Base, tmp_path: Path) -> None:
    saved(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), tmp_path / "soft")
    with pytest.raises(InvalidRequest, match="is a soft prompt, which has no weights to merge"):
        merge(tmp_path / "soft", tmp_path / "merged", base, PROMPTS)
    saved(base, LoraConfig(**PLAIN), tmp_path / "adapter")
    other = tmp_path / "other"
    other.mkdir()
    for path in base.folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-6}))
    with pytest.raises(InvalidRequest, match="another revision"):
        merge(tmp_path / "adapter", tmp_path / "merged", replace(base, folder=other), PROMPTS)


def test_an_adapter_by_itself_is_two_files_beside_its_bases_words(base: Base, tmp_path: Path) -> None:
    saved(base, LoraConfig(**PLAIN), tmp_path / "adapter")
    copy_adapter(tmp_path / "adapter", tmp_path / "out", base)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json",
    ]


def chatml(messages: list[dict[str, str]], generate: bool) -> str:
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return f"<s>{said}" + ("<|im_start|>assistant\n" if generate else "")


def test_a_template_is_told_in_ollamas_words() -> None:
    told = ollama.template(chatml, "<s>")
    assert told.startswith('{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n{{ else')
    assert told.endswith("{{ end }}{{ end }}<|im_start|>assistant\n")
    file = ollama.modelfile(told, ["<|im_end|>"], name="mine")
    assert file.splitlines()[:2] == ["# ollama create mine -f Modelfile", "FROM ."]
    assert 'PARAMETER stop "<|im_end|>"' in file


@pytest.mark.parametrize(("odd", "why"), [
    (lambda messages, generate: chatml(messages, generate).replace("Be brief.", "BE BRIEF."), "stands around it"),
    (lambda messages, generate: chatml(messages[-1:], generate), "stands around it|changes what a message says"),
    (lambda messages, generate: chatml(messages, generate).replace("<|im_end|>", "{{end}}"), "braces"),
])
def test_a_template_that_does_more_is_refused(odd: ollama.Render, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        ollama.template(odd, "<s>")
