"""What was used: requests and tokens per day, project, key, model and adapter. Counters that only grow; who counts is the API.

A day is a UTC date such as 2026-11-21. An upsert without a dialect's words: add to the row, or make it.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from tunesmith.db.tables import usage

By = Literal["key", "project", "model", "adapter"]
COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens")


@dataclass(frozen=True)
class Used:
    """`adapter` is the version that answered, named by its content, or empty; `cached_tokens` are part of `input_tokens`."""

    day: str
    project: str = ""
    key: str = ""
    model: str = ""
    adapter: str = ""
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def from_row(row: Row[Any]) -> Used:
    values: dict[str, Any] = {name: int(value) if name in COUNTS else value for name, value in row._mapping.items()}
    return Used(**values)  # PostgreSQL sums to Decimal


def to_row(used: Used) -> dict[str, Any]:
    return asdict(used)


def add(connection: Connection, batch: Iterable[Used]) -> None:
    """Adds each to its row."""
    for used in batch:
        if not _grow(connection, used):
            try:
                with connection.begin_nested():
                    connection.execute(insert(usage).values(to_row(used)))
            except IntegrityError:  # another server on the same database made the row meanwhile
                _grow(connection, used)


def _grow(connection: Connection, used: Used) -> bool:
    """False where there is no such row yet."""
    names = ("day", "project", "key", "model", "adapter")
    mine = [usage.c[name] == getattr(used, name) for name in names]
    grown = {name: usage.c[name] + getattr(used, name) for name in COUNTS}
    return connection.execute(update(usage).where(*mine).values(grown)).rowcount == 1


def report(connection: Connection, *, by: tuple[By, ...], start: str, end: str, project: str | None) -> list[Used]:
    """Sums per day and `by`, from day `start` to day `end`, both included; of one project, or of all when None."""
    groups = [usage.c.day, *(usage.c[name] for name in by)]
    where = [usage.c.day >= start, usage.c.day <= end]
    if project is not None:
        where.append(usage.c.project == project)
    sums = [func.sum(usage.c[name]).label(name) for name in COUNTS]
    return [from_row(row) for row in connection.execute(select(*groups, *sums).where(*where).group_by(*groups).order_by(*groups))]


def tokens_since(connection: Connection, day: str, *, project: str | None = None, key: str | None = None) -> int:
    """Tokens in and out from `day` on, of a project or a key."""
    mine = usage.c.project == project if key is None else usage.c.key == key
    total = func.coalesce(func.sum(usage.c.input_tokens + usage.c.output_tokens), 0)
    return int(connection.execute(select(total).where(mine, usage.c.day >= day)).scalar_one())
