"""The pages of chats and responses name every field of their tables."""

from pathlib import Path

import pytest

from tunesmith.schemas.chat import CHAT, COMPLETIONS, OWN
from tunesmith.schemas.embeddings import EMBEDDINGS
from tunesmith.schemas.fields import Table
from tunesmith.schemas.responses import RESPONSES

DOCS = Path(__file__).parents[2] / "docs"
TABLES: dict[str, Table] = {"chat.md": {**CHAT, **COMPLETIONS, **EMBEDDINGS}, "responses.md": RESPONSES}


@pytest.mark.parametrize("page", TABLES)
def test_every_field_is_on_the_page(page: str) -> None:
    text = (DOCS / page).read_text()
    shared = {"model"} if page == "responses.md" else {"input"}
    missing = [name for name in TABLES[page] if f"`{name}`" not in text and f"`{name}." not in text and name not in shared]
    assert missing == []


def test_our_own_fields_are_on_the_page() -> None:
    text = (DOCS / "chat.md").read_text()
    assert [name for name in sorted(OWN) if f"`{name}`" not in text] == []
