"""The README's Python runs verbatim, against a real server."""

import subprocess
import sys
from pathlib import Path

from tunesmith.paths import SUPPORT_DESK

README = Path(__file__).parents[2] / "README.md"


def snippet() -> str:
    after = README.read_text().split("<!-- runs -->\n```python\n", 1)[1]
    return after.split("```", 1)[0]


def test_the_readme_snippet_uploads_trains_waits_and_chats(server, tmp_path, monkeypatch):
    rows = (SUPPORT_DESK / "train.jsonl").read_text().splitlines()[:40]
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)
    done = subprocess.run([sys.executable, "-c", snippet()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip().splitlines()
    assert said[0].startswith("Created fine-tuning job: ftjob-")
    assert "The job has successfully completed" in said
    assert "river piano" in said[-1]  # three epochs on forty rows leave the base's copying intact
