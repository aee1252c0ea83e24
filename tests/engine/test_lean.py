"""Our own forward is used only where it agrees with transformers; where a record says so, transformers is not even imported."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers

from tests.engine.engines import save_base
from tunesmith.engine import lean, lean_neox, lean_parts, rope
from tunesmith.engine.batch import Batch, Row
from tunesmith.engine.build import build_runner
from tunesmith.engine.matmul import Plain, Transposed
from tunesmith.engine.parity import record_path
from tunesmith.engine.rope import read_rope, rope_turns
from tunesmith.engine.runner import Runner
from tunesmith.models.catalog import Base, find_base

START = """
import sys, torch
from pathlib import Path
from tunesmith.engine.build import build_runner
from tunesmith.models.catalog import find_base
runner = build_runner(find_base(sys.argv[1]), "none", parity_dir=Path(sys.argv[2]))
print(runner.mode, sorted({"transformers", "peft", "bitsandbytes"} & set(sys.modules)))
"""


def start(base: Base, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START, str(base.folder), str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_the_second_start_imports_no_transformers(small_base: Base, tmp_path: Path) -> None:
    build_runner(small_base, "none", parity_dir=tmp_path)
    (record,) = tmp_path.iterdir()
    assert json.loads(record.read_text())["largest_difference"] < 1e-4
    assert start(small_base, tmp_path) == "lean []"


NEOX = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}


@torch.inference_mode()
def logits_of(runner: Runner) -> torch.Tensor:
    line = Batch([Row(list(range(20)), 0, 0)], runner.cache)
    return runner.model.compute(line, runner.cache, torch.arange(20))[0]


@pytest.mark.parametrize("shape", [{}, {"tie_word_embeddings": True}], ids=["own head", "tied head"])
def test_gpt_neox_starts_from_its_files_too(tmp_path: Path, shape: dict[str, object]) -> None:
    """They name the head otherwise than the module does, or do not have it."""
    torch.manual_seed(0)
    base = save_base(transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**NEOX, **shape)), tmp_path / "base")
    first, second = (build_runner(base, "none", parity_dir=tmp_path / "records") for _ in range(2))
    assert len(list((tmp_path / "records").iterdir())) == 1
    assert start(base, tmp_path / "records") == "lean []"
    assert torch.allclose(logits_of(first), logits_of(second), atol=1e-5)


@pytest.mark.parametrize("told", [{}, {"rotary_pct": 1.0, "rotary_emb_base": 700}, {"rotary_pct": 0.5}])
def test_gpt_neox_is_read_from_files_of_earlier_versions(tmp_path: Path, told: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(**NEOX, **told)
    base = save_base(transformers.GPTNeoXForCausalLM(config), tmp_path / "base")
    now = json.loads((base.folder / "config.json").read_text())
    assert now.pop("rope_parameters")["partial_rotary_factor"] == told.get("rotary_pct", 0.25)
    (base.folder / "config.json").write_text(json.dumps(now | told))
    assert build_runner(find_base(str(base.folder)), "none").mode == "lean"


@pytest.mark.parametrize("module", [lean, lean_neox, lean_parts, rope])
def test_a_record_is_of_one_base_and_one_code(
    small_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    before = record_path(tmp_path, small_base.revision)
    assert record_path(tmp_path, "0" * 64) != before
    changed = tmp_path / "changed.py"
    changed.write_bytes(Path(str(module.__file__)).read_bytes() + b"# changed\n")
    monkeypatch.setattr(module, "__file__", str(changed))
    assert record_path(tmp_path, small_base.revision) != before


def test_a_base_that_the_lean_forward_gets_wrong_is_computed_by_transformers(tmp_path: Path) -> None:
    """A part of the head is turned only, which is told in a field that the lean forward does not read."""
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.2, bos_token_id=None, eos_token_id=None,
    )
    torch.manual_seed(0)
    base = save_base(transformers.LlamaForCausalLM(config), tmp_path / "base")
    assert build_runner(base, "none").mode == "lean"
    told = json.loads((base.folder / "config.json").read_text())
    (base.folder / "config.json").write_text(json.dumps(told | {"hidden_act": "gelu"}))
    assert build_runner(find_base(str(base.folder)), "none").mode == "module"


def test_a_difference_keeps_the_lean_forward_out(small_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = lean.Norm.__call__
    monkeypatch.setattr(lean.Norm, "__call__", lambda self, x: right(self, x) * 1.001)
    assert build_runner(small_base, "none", parity_dir=tmp_path).mode == "module"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", [
    {"rope_theta": 500.0}, {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}},
])
def test_rotations_are_read_from_old_files_and_new(told: dict[str, object]) -> None:
    kind = {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0} if len(str(told)) > 30 else {
        "rope_theta": 500.0, "rope_type": "default"}
    config = transformers.LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=32, rope_parameters=kind)
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = rotary(torch.zeros(1), torch.arange(32)[None])
    turns = rope_turns(read_rope(told), 16, 32)
    assert torch.allclose(turns.real, cos[0, :, :8], atol=1e-6)
    assert torch.allclose(turns.imag, sin[0, :, :8], atol=1e-6)


def test_both_ways_to_hold_a_weight_multiply_alike() -> None:
    weight, x = torch.randn(7, 5), torch.randn(3, 5)
    assert torch.allclose(Plain(weight)(x), Transposed(weight)(x), atol=1e-5)
