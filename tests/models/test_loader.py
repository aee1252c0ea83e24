"""Weights come through one loader: as they are stored or in NF4, frozen, and only from safetensors."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.errors import InvalidRequest
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.loader import is_nf4, load_base
from tunesmith.paths import TINY


def test_weights_are_loaded_bit_for_bit_frozen_and_in_eval_mode(small_base: Base) -> None:
    model = load_base(small_base, "none")
    stored = load_file(small_base.folder / "model.safetensors")
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_nf4_packs_all_linear_layers_but_the_head_and_computes_on_a_cpu(small_base: Base) -> None:
    model = load_base(small_base, "nf4")
    packed = [name for name, module in model.named_modules() if is_nf4(module)]
    assert len(packed) == 2 * 7
    assert not any("lm_head" in name for name in packed)
    assert all(model.get_submodule(name).weight.quant_state.nested for name in packed)
    stored = load_file(small_base.folder / "model.safetensors")
    for name in packed:
        layer, weight = model.get_submodule(name), stored[f"{name}.weight"]
        used = layer(torch.eye(layer.in_features)).T
        assert used.dtype == torch.float32
        assert (used - weight).abs().mean() < 0.12 * weight.abs().mean()


def test_missing_tensors_are_an_error_not_random_numbers(small_base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "holey"
    shutil.copytree(small_base.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidRequest, match=r"lack model\.layers\.1\.mlp\.up_proj"):
        load_base(find_base(str(folder)), "none")


def test_a_torn_file_is_an_error_in_one_sentence(small_base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(small_base.folder, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidRequest, match="cannot be loaded"):
        load_base(find_base(str(folder)), "none")


def test_rows_that_are_no_whole_blocks_are_refused_as_nf4_for_they_would_be_unpacked_wrongly(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    shutil.copy(TINY / "tokenizer.json", tmp_path)
    base = find_base(str(tmp_path))
    load_base(base, "none")
    with pytest.raises(InvalidRequest, match="rows of 32"):
        load_base(base, "nf4")
