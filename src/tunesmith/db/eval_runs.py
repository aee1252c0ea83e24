"""Eval runs and their items. A run is a job whose parent is its eval; a run that was deleted belongs to none.

What a worker says of one row becomes one item, however often it is told.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from tunesmith.db import jobs as all_jobs
from tunesmith.db.jobs import Job
from tunesmith.db.paging import Order, page
from tunesmith.db.tables import eval_items, jobs
from tunesmith.errors import NotFound
from tunesmith.types import JobStatus, Usage, new_id

KIND = "eval_run"


@dataclass(frozen=True)
class EvalItem:
    """`row` counts rows of the run from 0; `item` is the row, `sample` OpenAI's object of what was asked and answered, `results`
    one object per criterion, `usage` tokens per model. `status` is pass, fail or error."""

    run_id: str
    row: int
    status: str
    results: list[dict[str, Any]]
    usage: Usage
    item: dict[str, Any]
    sample: dict[str, Any]
    created: int
    id: str = field(default_factory=lambda: new_id("outputitem"))


def item_from_row(row: Row[Any]) -> EvalItem:
    values = dict(row._mapping)
    del values["num"]
    return EvalItem(**values)


def item_from_event(run_id: str, event: dict[str, Any]) -> EvalItem:
    """Of an event `item` of the run's worker."""
    names = ("row", "status", "results", "usage", "item", "sample")
    return EvalItem(run_id, **{name: event[name] for name in names}, created=int(event["time"]))


def add_item(connection: Connection, new: EvalItem) -> None:
    """Without effect when the row has an item already, and when the run was deleted meanwhile."""
    same = select(eval_items.c.num).where(eval_items.c.run_id == new.run_id, eval_items.c.row == new.row)
    kept = select(jobs.c.num).where(jobs.c.id == new.run_id, jobs.c.parent.is_not(None))
    if connection.execute(same).first() is None and connection.execute(kept).first() is not None:
        connection.execute(insert(eval_items).values(asdict(new)))


def get(connection: Connection, eval_id: str, run_id: str, project: str) -> Job:
    """Raises NotFound, also for a foreign run and for one that was deleted."""
    mine = (jobs.c.id == run_id, jobs.c.parent == eval_id, jobs.c.project == project, jobs.c.kind == KIND)
    row = connection.execute(select(jobs).where(*mine)).first()
    if row is None:
        hint = "`client.evals.runs.list(eval_id)` shows what there is."
        raise NotFound(f"No run found with id {run_id[:80]!r} in eval {eval_id[:80]!r}.", hint=hint, param="run_id")
    return all_jobs.from_row(row)


def list_page(
    connection: Connection, eval_id: str, project: str, *, after: str | None, limit: int, order: Order, statuses: list[JobStatus]
) -> tuple[list[Job], bool]:
    """Runs of an eval that are in one of the states, and whether there are more; all states when none is named."""
    where: list[ColumnElement[bool]] = [jobs.c.parent == eval_id, jobs.c.project == project, jobs.c.kind == KIND]
    if statuses:
        where.append(jobs.c.status.in_(statuses))
    found = page(connection, jobs, *where, after=after, limit=limit, order=order)
    return [all_jobs.from_row(row) for row in found.rows], found.has_more


def list_all(connection: Connection, eval_id: str) -> list[Job]:
    """Every run of an eval."""
    query = select(jobs).where(jobs.c.parent == eval_id, jobs.c.kind == KIND)
    return [all_jobs.from_row(row) for row in connection.execute(query)]


def forget(connection: Connection, run_id: str) -> None:
    """The run's items are gone, and nobody finds the run any more."""
    connection.execute(delete(eval_items).where(eval_items.c.run_id == run_id))
    connection.execute(update(jobs).where(jobs.c.id == run_id).values(parent=None, order={}, recipe={}, metadata=None))


def get_item(connection: Connection, run_id: str, item_id: str) -> EvalItem:
    """Raises NotFound."""
    row = connection.execute(select(eval_items).where(eval_items.c.id == item_id, eval_items.c.run_id == run_id)).first()
    if row is None:
        hint = "`client.evals.runs.output_items.list(...)` shows what there is."
        raise NotFound(f"No output item found with id {item_id[:80]!r}.", hint=hint, param="output_item_id")
    return item_from_row(row)


def list_items(
    connection: Connection, run_id: str, *, after: str | None, limit: int, order: Order, status: str | None
) -> tuple[list[EvalItem], bool]:
    """Items of a run in the order in which they were done, and whether there are more."""
    where: list[ColumnElement[bool]] = [eval_items.c.run_id == run_id]
    if status is not None:
        where.append(eval_items.c.status == status)
    found = page(connection, eval_items, *where, after=after, limit=limit, order=order)
    return [item_from_row(row) for row in found.rows], found.has_more
