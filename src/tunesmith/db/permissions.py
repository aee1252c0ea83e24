"""Which projects may use a fine-tuned model, or a checkpoint, of another project."""

import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from tunesmith.db.paging import Order, page
from tunesmith.db.tables import permissions
from tunesmith.errors import NotFound
from tunesmith.types import unix_now


@dataclass(frozen=True)
class Permission:
    """`project` may use `model`, which another project owns."""

    model: str
    project: str
    created: int = field(default_factory=unix_now)
    id: str = field(default_factory=lambda: f"cp_{secrets.token_hex(12)}")


def from_row(row: Row[Any]) -> Permission:
    values = dict(row._mapping)
    del values["num"]
    return Permission(**values)


def grant(connection: Connection, model: str, project: str) -> Permission:
    """The permission, which may have been there."""
    row = connection.execute(select(permissions).where(_of(model), permissions.c.project == project)).first()
    if row is not None:
        return from_row(row)
    made = Permission(model, project)
    connection.execute(insert(permissions).values(asdict(made)))
    return made


def is_granted(connection: Connection, model: str, project: str) -> bool:
    found = select(permissions.c.num).where(_of(model), permissions.c.project == project)
    return connection.execute(found).first() is not None


def list_page(
    connection: Connection, model: str, *, project: str | None, after: str | None, limit: int, order: Order
) -> tuple[list[Permission], bool]:
    """Permissions for a model, of one project if it is given, and whether there are more."""
    where = [_of(model)] if project is None else [_of(model), permissions.c.project == project]
    found = page(connection, permissions, *where, after=after, limit=limit, order=order)
    return [from_row(row) for row in found.rows], found.has_more


def revoke(connection: Connection, model: str, permission_id: str) -> None:
    """Raises NotFound."""
    # No RETURNING: SQLite's driver counts its rows only as they are read, and session.py would take it for no change.
    if connection.execute(delete(permissions).where(_of(model), permissions.c.id == permission_id)).rowcount == 0:
        raise NotFound(f"There is no permission {permission_id[:80]!r} for this checkpoint.", param="permission_id")


def forget(connection: Connection, model: str) -> None:
    """The model is no more."""
    connection.execute(delete(permissions).where(_of(model)))


def _of(model: str) -> Any:
    return permissions.c.model == model
