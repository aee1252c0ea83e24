"""Uploaded files: what a client calls them, and which blob holds their bytes. Does not open blobs.

A file that has expired is gone at once for every client; its row and blob go when somebody sweeps.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select

from tunesmith.db.paging import Order, page
from tunesmith.db.tables import files
from tunesmith.errors import NotFound
from tunesmith.types import DEFAULT_PROJECT, unix_now


@dataclass(frozen=True)
class File:
    """`sha256` names the blob; several files may share one. `filename` is for people and never a path."""

    id: str
    filename: str
    purpose: str
    num_bytes: int
    sha256: str
    created: int
    project: str = DEFAULT_PROJECT
    expires: int | None = None


def from_row(row: Row[Any]) -> File:
    values = dict(row._mapping)
    del values["num"]
    return File(**values)


def to_row(file: File) -> dict[str, Any]:
    return asdict(file)


def _is_there() -> ColumnElement[bool]:
    return or_(files.c.expires.is_(None), files.c.expires > unix_now())


def add(connection: Connection, file: File) -> None:
    connection.execute(insert(files).values(to_row(file)))


def get(connection: Connection, file_id: str, project: str) -> File:
    """A file of the project. Raises NotFound."""
    row = connection.execute(select(files).where(files.c.id == file_id, files.c.project == project, _is_there())).first()
    if row is None:
        raise NotFound(f"No such File object: {file_id[:80]}.", hint="`client.files.list()` shows what there is.", param="id")
    return from_row(row)


def list_page(
    connection: Connection, project: str, *, after: str | None, limit: int, order: Order, purpose: str | None
) -> tuple[list[File], bool]:
    """Files of the project, and whether there are more."""
    where = [files.c.project == project, _is_there()]
    if purpose is not None:
        where.append(files.c.purpose == purpose)
    found = page(connection, files, *where, after=after, limit=limit, order=order)
    return [from_row(row) for row in found.rows], found.has_more


def remove(connection: Connection, file_id: str, project: str) -> File:
    """The file that was. Raises NotFound."""
    file = get(connection, file_id, project)
    connection.execute(delete(files).where(files.c.id == file.id))
    return file


def remove_expired(connection: Connection) -> list[File]:
    """The files whose time is over, which were."""
    gone = connection.execute(delete(files).where(files.c.expires <= unix_now()).returning(files)).all()
    return [from_row(row) for row in gone]
