"""What lies in examples/ runs: the flat script as it stands, and every recipe is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tunesmith.recipes.run import load

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_the_flat_script_trains_saves_and_answers(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "sft_by_hand.py"), "--epochs", "1", "--rows", "32", "--out", str(tmp_path / "adapter")],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 1: step 4 of 4" in done.stdout
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any(tensor.abs().sum() > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_the_flat_script_stays_short():
    assert len((EXAMPLES / "sft_by_hand.py").read_text().splitlines()) < 120


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_each_recipe_can_be_read(path):
    recipe = load(path)
    assert Path(recipe.data.train).is_absolute()
    if path.name == "support_desk.toml":
        assert Path(recipe.data.train).is_file()
        assert Path(recipe.data.validation).is_file()
