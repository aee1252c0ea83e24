"""The desk is light: no process of it ever imports what computes."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "datasets")


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_importing_the_app_leaves_everything_heavy_out():
    done = run(f"import sys, tunesmith.api.app; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


JOB = """
import io, sys, threading, time
from pathlib import Path

import openai

from api.conftest import serve
from tunesmith.paths import SUPPORT_DESK
from tunesmith.settings import Settings

rows = (SUPPORT_DESK / "train.jsonl").read_bytes().splitlines(keepends=True)[:16]
question = [{"role": "user", "content": "hi"}]
with serve(Settings(data_dir=Path(sys.argv[1]), threads=1)) as served:
    client = served.client(timeout=300)
    file = client.files.create(file=("rows.jsonl", io.BytesIO(b"".join(rows))), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="tunesmith/tiny", training_file=file.id, suffix="light", hyperparameters={"n_epochs": 1, "batch_size": 8},
        extra_body={"recipe": {"adapter": {"rank": 2}, "threads": 1}},
    )
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    metrics = [event.data for event in events if event.type == "metrics" and "train_loss" in event.data]
    assert [data["step"] for data in metrics] == [2, 1], metrics
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data[0].step_number == 2
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=question, max_tokens=4, temperature=0)
    assert answer.model == job.fine_tuned_model
    streamed = client.chat.completions.create(
        model=job.fine_tuned_model, messages=question, max_tokens=4, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == (answer.choices[0].message.content or "")
    assert client.models.delete(job.fine_tuned_model).deleted
    assert job.trained_tokens > 0
    print([name for name in HEAVY if name in sys.modules])
"""


@pytest.mark.slow
def test_a_server_that_trained_and_served_a_model_has_imported_nothing_heavy(tmp_path):
    """The whole circle by the official client, in a process of its own that is searched afterwards."""
    path = f"import sys; sys.path.insert(0, {str(__file__.rpartition('/api/')[0])!r}); HEAVY = {HEAVY}\n"
    done = run(path + JOB, tmp_path / "data")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "[]"
