"""Every kind of adapter learns what PEFT computes, goes on exactly where it stopped, and is what it was when it is read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from results import timeless
from safetensors.torch import load_file

from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import InvalidRecipe, InvalidRequest
from tunesmith.models.artifact import WEIGHTS
from tunesmith.models.catalog import find_base
from tunesmith.models.loader import load_base
from tunesmith.models.whole import read_trained
from tunesmith.recipes.adapter import ADAPTERS
from tunesmith.recipes.run import merge, parse
from tunesmith.train import sft
from tunesmith.train.adapters import begin, peft_config
from tunesmith.train.loss import IGNORED, token_loss

from .small import SMALL, Recorder, make_folder

pytestmark = pytest.mark.slow

WORDS = "Write with capital letters"
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "rank": 4, "use_rslora": True},
    "dora": {"type": "lora", "rank": 4, "dropout": 0.1, "use_dora": True},
    "prompt": {"type": "prompt", "num_virtual_tokens": 5},
    "p_tuning": {"type": "p_tuning", "num_virtual_tokens": 5, "encoder_hidden_size": 32},
    "prefix": {"type": "prefix", "num_virtual_tokens": 5},
    "full": {"type": "full"},
}
SOFT_OR_LORA = [kind for kind in KINDS if kind != "full"]


def recipe(kind: str, **fields: Any) -> Any:
    part = {name: value for name, value in SMALL.items() if name != "adapter"}
    return parse(merge(part, {"adapter": KINDS[kind] | fields}))


def folder_of(root, kind, **changes):
    folder = make_folder(root, **changes)
    whole = json.loads((folder.root / "recipe.json").read_text())
    return folder.create(parse(whole | {"adapter": KINDS[kind]}))


def begun(kind: str, **fields: Any) -> Any:
    """The built-in base with an adapter of the kind, as training begins with it."""
    base, made = find_base("tunesmith/tiny"), recipe(kind, **fields)
    torch.manual_seed(1)
    config = peft_config(made, base)
    assert config is not None
    model = get_peft_model(load_base(base, "none"), config)
    begin(model, made, load_tokenizer(base.folder))
    return model.eval()


def test_the_kinds_here_are_those_of_the_table():
    assert {value["type"] for value in KINDS.values()} == set(ADAPTERS)


@pytest.mark.parametrize("kind", SOFT_OR_LORA)
def test_the_loss_is_that_of_pefts_own_forward(kind):
    model = begun(kind)
    ids = torch.randint(10, 4000, (3, 12), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[:, :4], labels[1, 7:] = IGNORED, IGNORED
    mine = token_loss(model, {"input_ids": ids, "labels": labels}, fused_head=False)
    theirs = model(input_ids=ids, labels=labels).loss
    assert (mine.nll_sum / mine.num_tokens).item() == pytest.approx(theirs.item(), abs=1e-5)
    grads = [torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
             for loss in (mine.nll_sum / mine.num_tokens, theirs)]
    assert all(a is b or torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_a_soft_prompt_that_begins_as_words_computes_what_the_words_before_the_row_do(kind):
    base = find_base("tunesmith/tiny")
    words = load_tokenizer(base.folder)(WORDS, add_special_tokens=False)["input_ids"]
    model = begun(kind, num_virtual_tokens=len(words), init_text=WORDS)
    ids = torch.randint(10, 4000, (1, 9), generator=torch.Generator().manual_seed(2))
    plain = load_base(base, "none")
    expected = plain(input_ids=torch.cat([torch.tensor([words]), ids], 1)).logits[:, len(words) :]
    columns = torch.arange(9)
    assert torch.allclose(model(input_ids=ids, logits_to_keep=columns).logits, expected, atol=1e-4)
    with model.disable_adapter():
        assert torch.allclose(model(input_ids=ids, logits_to_keep=columns).logits, plain(input_ids=ids).logits, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_ends_bit_for_bit_the_same_when_it_is_stopped_between(tmp_path, kind):
    whole, parts = folder_of(tmp_path / "whole", kind), folder_of(tmp_path / "parts", kind)
    result = sft.run(whole.recipe(), whole, Recorder().tools())
    assert result["metrics"]["eval_loss"] < result["metrics"]["eval_loss_before"]
    assert sft.run(parts.recipe(), parts, Recorder(stop_after=3).tools()) is None
    assert timeless(sft.run(parts.recipe(), parts, Recorder().tools())) == timeless(result)
    info = read_trained(whole.root / result["adapter"]["path"])
    assert info.kind == {"p_tuning": "prompt"}.get(kind, kind)
    assert info.num_virtual == whole.recipe().adapter.num_virtual
    weights = Path(result["adapter"]["path"]) / ("model.safetensors" if kind == "full" else WEIGHTS)
    tensors = [load_file(folder.root / weights) for folder in (whole, parts)]
    assert all(tensors[0][name].equal(tensors[1][name]) for name in tensors[0])
    if kind == "full":
        _is_a_base_of_its_own(whole.root / result["adapter"]["path"], info, tensors[0])


def _is_a_base_of_its_own(folder, info, tensors):
    old, new = find_base("tunesmith/tiny"), find_base(str(folder))
    assert (info.content_hash, info.base_revision) == (new.revision, old.revision)
    assert new.num_parameters == old.num_parameters
    before = load_file(old.folder / "model.safetensors")
    assert before.keys() == tensors.keys()
    assert not any(before[name].equal(tensors[name]) for name in before)
    # What is loaded again computes with what was trained, and speaks in the same words.
    assert load_base(new, "none").model.norm.weight.equal(tensors["model.norm.weight"])
    assert load_tokenizer(new.folder).chat_template == load_tokenizer(old.folder).chat_template
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(InvalidRequest, match="was changed"):
        read_trained(folder)


def test_weights_that_cannot_move_are_refused():
    with pytest.raises(InvalidRecipe, match="quantization must be none for adapter.type full"):
        parse({"adapter": {"type": "full"}, "quantization": "nf4", "data": {"train": "x"}})


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_take_positions_of_the_longest_row(tmp_path, kind):
    folder = folder_of(tmp_path / "run", kind, method={"epochs": 0.1})
    result = sft.run(folder.recipe(), folder, Recorder().tools())
    assert result["hyperparameters"]["max_length"] == find_base("tunesmith/tiny").max_positions - 5


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_int8_base_trains_and_is_served_as_it_was_trained(tmp_path, kind):
    changes = {"quantization": "int8", "evaluation": {"verify": True}}
    whole, parts = (folder_of(tmp_path / name, kind, **changes) for name in ("whole", "parts"))
    result = sft.run(whole.recipe(), whole, Recorder().tools())
    assert result["adapter"]["quantization"] == "int8"
    assert result["metrics"]["eval_loss"] < result["metrics"]["eval_loss_before"]
    assert sft.run(parts.recipe(), parts, Recorder(stop_after=3).tools()) is None
    again = sft.run(parts.recipe(), parts, Recorder().tools())
    assert again["adapter"]["content_hash"] == result["adapter"]["content_hash"]
    assert result["proof"]["worst"] < 1e-4
