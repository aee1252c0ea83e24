"""A run that is killed at any of its durable actions, and goes on, ends bit for bit as one that nobody killed (see faults.py).

Every action of supervised fine-tuning in `make test`; every method and kind of adapter in `make test-faults`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.recipes.adapter import ADAPTERS
from tunesmith.recipes.method import METHODS

pytestmark = pytest.mark.slow

VARIANTS = {"lora": [{}, {"use_dora": True}, {"use_rslora": True}]}
"""Adapters of one kind that save or train otherwise."""
QUANTIZED = ("none", "nf4", "int8")
NEEDS_BASE = {("full", "dpo"), ("full", "kto")}
"""All weights cannot be trained away from the reference that these methods compare with."""


def cases():
    for method in METHODS:
        for kind in ADAPTERS:
            if (kind, method) not in NEEDS_BASE:
                for variant in VARIANTS.get(kind, [{}]):
                    yield {"method": {"type": method}, "adapter": {"type": kind, **variant}}
    for quantization in QUANTIZED[1:]:
        yield {"method": {"type": "sft"}, "quantization": quantization}
    yield {"method": {"type": "sft"}, "compute": {"optimizer": "adamw_8bit"}}


def killed_everywhere(tmp_path, changes, every=1):
    script = Path(__file__).with_name("faults.py")
    command = [sys.executable, script, tmp_path, json.dumps(changes), "--every", str(every)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(1200)
def test_a_kill_at_any_durable_action_changes_no_bit(tmp_path):
    assert killed_everywhere(tmp_path, {"method": {"type": "sft"}})["kills"] > 20


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("changes", list(cases()), ids=lambda changes: "-".join(str(v) for part in changes.values() for v in (
    part.values() if isinstance(part, dict) else [part])))  # fmt: skip
def test_the_same_for_every_method_and_kind_of_adapter(tmp_path, changes):
    found = killed_everywhere(tmp_path, changes)
    print(found)
    assert found["kills"] > 20
