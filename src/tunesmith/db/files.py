"""Uploaded files: what a client calls them, and which blob holds their bytes. Does not open blobs."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from tunesmith.db.paging import Order, page
from tunesmith.db.tables import files
from tunesmith.errors import NotFound
from tunesmith.types import DEFAULT_PROJECT


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


def from_row(row: Row[Any]) -> File:
    values = dict(row._mapping)
    del values["num"]
    return File(**values)


def to_row(file: File) -> dict[str, Any]:
    return asdict(file)


def add(connection: Connection, file: File) -> None:
    connection.execute(insert(files).values(to_row(file)))


def get(connection: Connection, file_id: str) -> File:
    """Raises NotFound."""
    row = connection.execute(select(files).where(files.c.id == file_id)).first()
    if row is None:
        raise NotFound(f"No such File object: {file_id[:80]}.", hint="`client.files.list()` shows what there is.", param="id")
    return from_row(row)


def list_page(
    connection: Connection, *, after: str | None, limit: int, order: Order, purpose: str | None
) -> tuple[list[File], bool]:
    """Files, and whether there are more."""
    where = [] if purpose is None else [files.c.purpose == purpose]
    found = page(connection, files, *where, after=after, limit=limit, order=order)
    return [from_row(row) for row in found.rows], found.has_more


def remove(connection: Connection, file_id: str) -> tuple[File, bool]:
    """The file that was, and whether its blob is now nobody's. Raises NotFound."""
    file = get(connection, file_id)
    connection.execute(delete(files).where(files.c.id == file_id))
    return file, not is_used(connection, file.sha256)


def is_used(connection: Connection, sha256: str) -> bool:
    """Does any file have this content?"""
    return connection.execute(select(func.count()).select_from(files).where(files.c.sha256 == sha256)).scalar_one() > 0
