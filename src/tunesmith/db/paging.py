"""Lists by cursor, as OpenAI has them: the rows after a given id, newest or oldest first, and whether there are more."""

from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Table, select

from tunesmith.errors import InvalidRequest

Order = Literal["asc", "desc"]


class Page(NamedTuple):
    rows: list[Row[Any]]
    has_more: bool


def page(
    connection: Connection,
    table: Table,
    *where: ColumnElement[bool],
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page:
    """At most `limit` rows of `table` that fulfil `where`, by `num`. Raises InvalidRequest for an unknown `after`."""
    query = select(table).where(*where).limit(limit + 1)
    if after is not None:
        num = connection.execute(select(table.c.num).where(table.c.id == after)).scalar()
        if num is None:
            raise InvalidRequest(f"There is no {after!r} to list from.", hint="Pass the last id of a page.", param="after")
        query = query.where(table.c.num < num if order == "desc" else table.c.num > num)
    rows = list(connection.execute(query.order_by(table.c.num.desc() if order == "desc" else table.c.num.asc())))
    return Page(rows[:limit], len(rows) > limit)
