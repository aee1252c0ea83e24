"""Events of a job: what its worker wrote (attempt 1 and up) and what the desk itself says about it (attempt 0)."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select

from tunesmith.db.paging import page
from tunesmith.db.tables import events
from tunesmith.types import new_id

Level = Literal["info", "warn", "error"]
DESK = 0
"""The attempt under which the desk's own events stand."""


@dataclass(frozen=True)
class JobEvent:
    """`type` is the run folder's word (step, checkpoint, ...) or `desk`; `message` and `level` are what OpenAI's client sees."""

    job_id: str
    attempt: int
    seq: int
    type: str
    message: str
    time: float
    level: Level = "info"
    payload: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: new_id("ftevent"))


def from_row(row: Row[Any]) -> JobEvent:
    values = dict(row._mapping)
    del values["num"]
    return JobEvent(**values)


def to_row(event: JobEvent) -> dict[str, Any]:
    return asdict(event)


def add(connection: Connection, event: JobEvent) -> bool:
    """True if the event was new; the same (job, attempt, seq) twice is one row."""
    same = (events.c.job_id == event.job_id) & (events.c.attempt == event.attempt) & (events.c.seq == event.seq)
    if connection.execute(select(events.c.num).where(same)).first() is not None:
        return False
    connection.execute(insert(events).values(to_row(event)))
    return True


def say(connection: Connection, job_id: str, message: str, level: Level = "info", **payload: Any) -> None:
    """The desk's own line in the job's log."""
    mine = (events.c.job_id == job_id) & (events.c.attempt == DESK)
    following = select(func.coalesce(func.max(events.c.seq), 0) + 1).where(mine).scalar_subquery()
    event = JobEvent(job_id, DESK, 0, "desk", message, time.time(), level, payload)
    connection.execute(insert(events).values(to_row(event) | {"seq": following}))


def list_page(
    connection: Connection, job_id: str, *, after: str | None, limit: int, type: str | None = None
) -> tuple[list[JobEvent], bool]:
    """Newest first, and whether there are more."""
    where: list[ColumnElement[bool]] = [events.c.job_id == job_id]
    if type is not None:
        where.append(events.c.type == type)
    found = page(connection, events, *where, after=after, limit=limit)
    return [from_row(row) for row in found.rows], found.has_more


def list_since(connection: Connection, job_id: str, after: str | None = None) -> list[JobEvent]:
    """Oldest first, all those after the event `after`."""
    found = page(connection, events, events.c.job_id == job_id, after=after, limit=100_000, order="asc")
    return [from_row(row) for row in found.rows]
