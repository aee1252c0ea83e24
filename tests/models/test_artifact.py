"""An adapter is named by its content, and what PEFT wrote loads again, in PEFT and here."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.models.artifact import AdapterInfo, RawTensor, content_hash, read_adapter, read_tensors
from tunesmith.models.catalog import Base
from tunesmith.models.loader import load_base

Make = Callable[..., AdapterInfo]
PROJECTIONS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def test_a_saved_adapter_tells_what_it_is_and_is_read_again(make_adapter: Make, small_base: Base) -> None:
    info = make_adapter(1)
    assert (info.rank, info.alpha, info.scaling, info.targets) == (4, 8.0, 2.0, PROJECTIONS)
    assert (info.base, info.base_revision, info.quantization) == (small_base.id, small_base.revision, "none")
    assert read_adapter(Path(info.path)) == info
    names = {path.name for path in Path(info.path).iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "artifact.json"}


def test_peft_loads_it(make_adapter: Make, small_base: Base) -> None:
    info = make_adapter(1)
    model = PeftModel.from_pretrained(load_base(small_base, "none"), info.path)
    stored = read_tensors(Path(info.path) / "adapter_model.safetensors")
    loaded = model.state_dict()["base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight"]
    raw = stored["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"]
    assert torch.equal(torch.frombuffer(bytearray(raw.data), dtype=torch.float32).view(raw.shape), loaded)


def test_equal_content_has_an_equal_hash_and_other_content_another(make_adapter: Make) -> None:
    assert make_adapter(1).content_hash == make_adapter(1).content_hash
    assert len({make_adapter(1).content_hash, make_adapter(2).content_hash, make_adapter(1, rank=8).content_hash}) == 3


def test_the_hash_covers_names_types_shapes_bytes_and_what_scales_them() -> None:
    tensor = RawTensor("F32", (2,), b"12345678")
    variants = [
        ({"a": tensor}, {"rank": 1}),
        ({"b": tensor}, {"rank": 1}),
        ({"a": tensor._replace(dtype="I32")}, {"rank": 1}),
        ({"a": tensor._replace(shape=(1, 2))}, {"rank": 1}),
        ({"a": tensor._replace(data=b"12345679")}, {"rank": 1}),
        ({"a": tensor}, {"rank": 2}),
        ({"a": tensor, "b": tensor}, {"rank": 1}),
    ]
    assert len({content_hash(*variant) for variant in variants}) == len(variants)
    assert content_hash({"a": tensor, "b": tensor}, {}) == content_hash({"b": tensor, "a": tensor}, {})


@pytest.fixture
def copied(make_adapter: Make, tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_adapter(1).path, tmp_path / "adapter"))


def test_a_changed_byte_is_noticed(copied: Path) -> None:
    weights = copied / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InvalidRequest, match="changed after it was saved"):
        read_adapter(copied)


def test_a_changed_scale_is_noticed(copied: Path) -> None:
    config = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    with pytest.raises(InvalidRequest, match="changed after it was saved"):
        read_adapter(copied)


def test_a_torn_or_missing_file_is_an_error_that_names_it(copied: Path) -> None:
    weights = copied / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InvalidRequest, match="cut off"):
        read_adapter(copied)
    weights.unlink()
    with pytest.raises(NotFound, match="adapter_model.safetensors is missing"):
        read_adapter(copied)


@pytest.mark.parametrize("change", [{"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"peft_type": "IA3"}])
def test_what_the_engine_does_not_compute_is_refused_before_it_is_served(copied: Path, change: dict[str, object]) -> None:
    config = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(InvalidRequest, match="not served here"):
        read_adapter(copied)
