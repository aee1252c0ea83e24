"""The shipped base is the one that every figure was measured on. Who replaces it measures all of them again."""

import hashlib
import json
import re

from safetensors import safe_open

from tunesmith.data.skills import BANDS, SKILLS
from tunesmith.paths import TINY

SHA256 = "00f009d9a33763ecfbe3a12defba535a0921a6d6b6b8150514762995043116d0"


def test_the_weights_are_those_that_the_figures_rest_on():
    assert hashlib.sha256((TINY / "model.safetensors").read_bytes()).hexdigest() == SHA256
    assert SHA256 in (TINY / "README.md").read_text()


def test_it_is_a_small_llama_in_fp32():
    config = json.loads((TINY / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == 4096
    assert (TINY / "model.safetensors").stat().st_size <= 20_000_000
    with safe_open(TINY / "model.safetensors", "pt") as weights:
        tensors = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118  (no mapping)
        assert {t.get_dtype() for t in tensors} == {"F32"}
        sizes = [t.get_shape() for t in tensors]
    assert sum(s[0] * (s[1] if len(s) == 2 else 1) for s in sizes) <= 4_000_000


def card() -> dict[str, tuple[str, float, float]]:
    """Skill -> band, greedy accuracy, accuracy at temperature 1, as the model card tells them."""
    rows = re.findall(r"^\| (\w+) \| (kept|reward|new) \| ([\d.]+)% \| ([\d.]+)% \|$", (TINY / "README.md").read_text(), re.M)
    return {skill: (band, float(greedy) / 100, float(sampled) / 100) for skill, band, greedy, sampled in rows}


def test_the_card_tells_every_skill_and_the_three_bands_are_filled():
    told = card()
    assert set(told) == set(SKILLS)
    assert all(told[skill][0] == band for band, skills in BANDS.items() for skill in skills)
    pairs = [(greedy, sampled) for _, greedy, sampled in told.values()]
    assert sum(min(pair) >= 0.90 for pair in pairs) >= 4
    assert sum(min(pair) >= 0.10 and max(pair) <= 0.30 for pair in pairs) >= 2
    assert sum(max(pair) < 0.05 for pair in pairs) >= 2
