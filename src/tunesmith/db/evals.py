"""Evals: what is measured, and by which graders. Their runs are jobs (`db/eval_runs.py`)."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select, tuple_, update

from tunesmith.db.paging import Order, page
from tunesmith.db.tables import evals
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.types import DEFAULT_PROJECT

OrderBy = Literal["created_at", "updated_at"]


@dataclass(frozen=True)
class Eval:
    """`config` and `criteria` are OpenAI's data_source_config and testing_criteria, as they were asked for. Times are seconds."""

    id: str
    name: str
    config: dict[str, Any]
    criteria: list[dict[str, Any]]
    created: int
    updated: float
    metadata: dict[str, str] | None = None
    project: str = DEFAULT_PROJECT


def from_row(row: Row[Any]) -> Eval:
    values = dict(row._mapping)
    del values["num"]
    return Eval(**values)


def to_row(each: Eval) -> dict[str, Any]:
    return asdict(each)


def add(connection: Connection, new: Eval) -> None:
    connection.execute(insert(evals).values(to_row(new)))


def get(connection: Connection, eval_id: str, project: str) -> Eval:
    """Raises NotFound, also for a foreign one."""
    row = connection.execute(select(evals).where(evals.c.id == eval_id, evals.c.project == project)).first()
    if row is None:
        hint = "`client.evals.list()` shows what there is."
        raise NotFound(f"No eval found with id {eval_id[:80]!r}.", hint=hint, param="eval_id")
    return from_row(row)


def list_page(
    connection: Connection, project: str, *, after: str | None, limit: int, order: Order, order_by: OrderBy
) -> tuple[list[Eval], bool]:
    """By creation or by the last change, and whether there are more. Raises InvalidRequest for an unknown `after`."""
    mine = evals.c.project == project
    if order_by == "created_at":
        found = page(connection, evals, mine, after=after, limit=limit, order=order)
        return [from_row(row) for row in found.rows], found.has_more
    place = (evals.c.updated, evals.c.num)
    query = select(evals).where(mine).limit(limit + 1)
    if after is not None:
        last = connection.execute(select(*place).where(evals.c.id == after, mine)).first()
        if last is None:
            raise InvalidRequest(f"There is no {after!r} to list from.", hint="Pass the last id of a page.", param="after")
        query = query.where(tuple_(*place) < tuple(last) if order == "desc" else tuple_(*place) > tuple(last))
    query = query.order_by(*(column.desc() if order == "desc" else column.asc() for column in place))
    rows = list(connection.execute(query))
    return [from_row(row) for row in rows[:limit]], len(rows) > limit


def change(connection: Connection, old: Eval, **fields: Any) -> Eval:
    """A new name, new metadata; says that it was changed now."""
    new = replace(old, **fields, updated=time.time())
    connection.execute(update(evals).where(evals.c.id == old.id).values(to_row(new)))
    return new


def remove(connection: Connection, old: Eval) -> None:
    connection.execute(delete(evals).where(evals.c.id == old.id))
