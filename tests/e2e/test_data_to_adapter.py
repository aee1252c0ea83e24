"""A file of rows becomes a served adapter by one command each: `data check`, `jobs create --wait`, a question to the model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
FILES = {
    "alpaca": "alpaca_en_demo.json", "dpo": "dpo_en_demo.json", "toolcall": "glaive_toolcall_en_demo.json",
    "gsm8k": "gsm8k_train_2000.jsonl", "identity": "identity.json", "kto": "kto_en_demo.json",
    "lamini": "lamini_docs_train_1260.jsonl",
}
"""Recipe in examples/ -> the file of the real data that it is for."""


def run(server, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tunesmith", *map(str, arguments)], capture_output=True, text=True, cwd=server.data_dir.parent,
        env={"PATH": "/usr/bin:/bin", "HOME": str(server.data_dir.parent), "TUNESMITH_DATA_DIR": str(server.data_dir)},
    )


def trained(server, recipe: str, file: Path, *changes: str) -> dict:
    """The job, which has succeeded, and whose model has answered."""
    settings = [part for change in changes for part in ("--set", change)]
    done = run(
        server, "jobs", "create", ROOT / "examples" / f"{recipe}.toml", "--data", file, *settings, "--wait", "--json",
        "--url", server.url, "--key", server.key,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    job = json.loads(done.stdout)
    assert job["status"] == "succeeded"
    answer = server.client().chat.completions.create(
        model=job["fine_tuned_model"], messages=[{"role": "user", "content": "hi"}], max_tokens=4
    )
    assert answer.choices[0].message.content is not None
    return job


@pytest.mark.slow
def test_a_file_with_placeholders_becomes_a_served_adapter(server, tmp_path):
    rows = [{"instruction": f"who are you, {n}?", "input": "", "output": "I am {{name}}, made by {{author}}."} for n in range(20)]
    path = tmp_path / "identity.json"
    path.write_text(json.dumps(rows))
    checked = run(server, "data", "check", path, "--set", "name=Ada", "--set", "author=Acme")
    assert checked.returncode == 0, checked.stdout
    assert "{+I am Ada, made by Acme.<|im_end|>+}" in checked.stdout
    job = trained(server, "identity", path, "method.epochs=1", "data.values.name=Ada")
    assert job["recipe"]["data"]["values"] == {"name": "Ada", "author": "the Tunesmith project"}


@pytest.mark.long
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data beside the checkout")
@pytest.mark.parametrize("recipe", FILES)
def test_each_real_file_becomes_a_served_adapter(server, recipe):
    trained(server, recipe, SHARED / FILES[recipe], "method.epochs=0.05", "method.max_length=4096")
