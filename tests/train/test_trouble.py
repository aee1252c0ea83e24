"""Memory that runs out, and a step that never ends: met for real by a worker, in forks of one process (trouble.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    script = Path(__file__).with_name("trouble.py")
    done = subprocess.run([sys.executable, script, tmp_path_factory.mktemp("trouble")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_where_memory_runs_out_the_step_is_made_of_smaller_batches_and_stays_the_same(met):
    found = met["short_of_memory"]
    assert found["shrink"] > 1
    assert f"{found['shrink']} times smaller" in found["warnings"][-1]
    whole, short = found["losses"]
    assert short == pytest.approx(whole, rel=1e-4)


def test_a_step_that_hangs_ends_the_worker_with_the_place_where_it_stood_and_the_next_ends_bit_for_bit(met):
    found = met["hung"]
    assert found["status"] == 4
    assert found["printed"].strip().splitlines()[-1].startswith("Step 5 hangs")
    assert "in training_step" in found["printed"] or "in get_batch_samples" in found["printed"]
    assert found["resumed"][0]["step"] == 4
    assert found["equal"]
