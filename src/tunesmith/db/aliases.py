"""Aliases: names that traffic uses, each for one model of its project. Moving one is promotion; back to `previous`, rollback."""

import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from tunesmith.db.tables import aliases
from tunesmith.errors import NotFound
from tunesmith.types import unix_now


@dataclass(frozen=True)
class Alias:
    """`name` answers as `model`; before it was moved last, at `moved`, it answered as `previous`."""

    name: str
    model: str
    project: str
    previous: str | None = None
    created: int = field(default_factory=unix_now)
    moved: int = field(default_factory=unix_now)
    id: str = field(default_factory=lambda: f"alias_{secrets.token_hex(12)}")


def from_row(row: Row[Any]) -> Alias:
    values = dict(row._mapping)
    del values["num"]
    return Alias(**values)


def find(connection: Connection, project: str, name: str) -> Alias | None:
    row = connection.execute(select(aliases).where(aliases.c.project == project, aliases.c.name == name)).first()
    return None if row is None else from_row(row)


def get(connection: Connection, project: str, name: str) -> Alias:
    """Raises NotFound."""
    found = find(connection, project, name)
    if found is None:
        raise NotFound(f"There is no alias {name[:80]!r}.", hint="GET /v1/adapters/aliases lists them.", param="name")
    return found


def put(connection: Connection, project: str, name: str, model: str) -> Alias:
    """The alias, made or moved to `model`."""
    old = find(connection, project, name)
    if old is None:
        made = Alias(name, model, project)
        connection.execute(insert(aliases).values(asdict(made)))
        return made
    if old.model != model:
        moved = {"model": model, "previous": old.model, "moved": unix_now()}
        connection.execute(update(aliases).where(aliases.c.id == old.id).values(moved))
    return get(connection, project, name)


def list_all(connection: Connection, project: str) -> list[Alias]:
    """Oldest first."""
    query = select(aliases).where(aliases.c.project == project).order_by(aliases.c.num)
    return [from_row(row) for row in connection.execute(query)]


def list_of(connection: Connection, model: str) -> list[Alias]:
    """Those that answer as a model, of any project."""
    return [from_row(row) for row in connection.execute(select(aliases).where(aliases.c.model == model))]


def remove(connection: Connection, project: str, name: str) -> Alias:
    """The alias that was. Raises NotFound."""
    found = get(connection, project, name)
    connection.execute(delete(aliases).where(aliases.c.id == found.id))
    return found
