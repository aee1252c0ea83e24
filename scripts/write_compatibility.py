"""Writes docs/compatibility.md: starts the tests' server and asks it, field by field (tests/api/compatibility.py)."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from api.compatibility import page  # noqa: E402
from api.conftest import serve  # noqa: E402

from tunesmith.settings import Settings  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, serve(Settings(data_dir=Path(folder), threads=1)) as served:
        text = page(served)
    (ROOT / "docs" / "compatibility.md").write_text(text)
    print(f"docs/compatibility.md: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
