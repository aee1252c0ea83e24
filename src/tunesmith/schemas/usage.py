"""Usage on the wire: one row per day and group, as JSON or CSV."""

import csv
import io
from typing import Any, Literal, get_args

from tunesmith.db.usage import COUNTS, By, Used
from tunesmith.errors import InvalidRequest
from tunesmith.schemas.common import Wire

GROUPS: tuple[By, ...] = get_args(By)
DAYS = 30
"""Shown when no first day is named."""


class UsageRow(Wire):
    """Of one day. What the report is not grouped by is None."""

    object: Literal["usage"] = "usage"
    day: str
    project: str | None
    key: str | None
    model: str | None
    adapter: str | None
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


def from_used(used: Used, by: tuple[str, ...]) -> UsageRow:
    return UsageRow(
        day=used.day, requests=used.requests, input_tokens=used.input_tokens, cached_tokens=used.cached_tokens,
        output_tokens=used.output_tokens,
        project=used.project if "project" in by else None, key=used.key if "key" in by else None,
        model=used.model if "model" in by else None, adapter=used.adapter if "adapter" in by else None,
    )  # fmt: skip


def to_groups(by: str) -> tuple[By, ...]:
    """`"key,model"` as a tuple. Raises InvalidRequest."""
    words = [word.strip() for word in by.split(",") if word.strip()]
    wrong = [word for word in words if word not in GROUPS]
    if wrong:
        hint = f"There are: {', '.join(GROUPS)}."
        raise InvalidRequest(f"Usage is not counted by {wrong[0][:80]!r}.", hint=hint, param="by", code="invalid_value")
    return tuple(group for group in GROUPS if group in words)


def to_csv(rows: list[UsageRow], groups: tuple[By, ...]) -> str:
    """A head and a line per row. A name that a spreadsheet would compute is made text."""
    columns = ["day", *groups, *COUNTS]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_plain(getattr(row, column)) for column in columns])
    return text.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
