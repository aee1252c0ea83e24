"""The page that says what is compatible is what a running server does."""

from pathlib import Path

from api.compatibility import page
from api.conftest import serve
from tunesmith.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


def test_the_page_says_what_the_server_does(tmp_path):
    with serve(Settings(data_dir=tmp_path / "data", threads=1)) as served:
        found = page(served)
    assert found == PAGE.read_text(), "run python scripts/write_compatibility.py and read what changed"
