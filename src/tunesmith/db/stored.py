"""Stored answers: chat completions and responses, each with its question, so that evals and training can read them again.

A document is JSON: `{"request": {...}, "answer": {...}}` of a completion; of a response also its `items`. Large ones lie in the
blob store. A row is somebody's: whoever looks it up says for which project.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from tunesmith.db.paging import Order, page
from tunesmith.db.tables import files, stored
from tunesmith.errors import NotFound
from tunesmith.store import BlobStore

Kind = Literal["completion", "response"]
NAMES = {"completion": "Chat completion", "response": "Response"}
LARGE = 64 * 1024
"""Bytes of a document from which on it is a blob."""


@dataclass(frozen=True)
class Stored:
    """`status` is OpenAI's word for a response (`completed`, `failed` ...); `document` is JSON text, or None for a blob's."""

    id: str
    kind: Kind
    project: str
    model: str
    created: int
    metadata: dict[str, str]
    document: str | None
    sha256: str | None = None
    status: str = "completed"


def from_row(row: Row[Any]) -> Stored:
    values = dict(row._mapping)
    del values["num"]
    return Stored(**values)


def to_row(row: Stored) -> dict[str, Any]:
    return asdict(row)


def to_document(value: dict[str, Any]) -> str:
    """ASCII, so that any database takes what any client sent."""
    return json.dumps(value)


def document(store: BlobStore, row: Stored) -> dict[str, Any]:
    """The question and the answer. Raises NotFound if the blob is gone."""
    text = store.read(row.sha256) if row.sha256 is not None else row.document or "{}"
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def laid_out(store: BlobStore, row: Stored) -> Stored:
    """The row with a large document put into the store. Raises StorageFull."""
    if row.document is None or len(row.document) < LARGE:
        return row
    # A word that nobody is shown: no file of a client's can have the same content, and share the blob.
    blob = store.put([json.dumps({"salt": secrets.token_hex(8)} | json.loads(row.document)).encode()])
    return replace(row, document=None, sha256=blob.sha256)


def add_all(connection: Connection, rows: Sequence[Stored]) -> None:
    """Rows that are new; one that is there already (a background response that goes on) is replaced."""
    ids = [row.id for row in rows]
    there = set(connection.execute(select(stored.c.id).where(stored.c.id.in_(ids))).scalars())
    for row in rows:
        if row.id in there:
            connection.execute(update(stored).where(stored.c.id == row.id).values(to_row(row)))
    new = {row.id: to_row(row) for row in rows if row.id not in there}
    if new:
        connection.execute(insert(stored), list(new.values()))


def get(connection: Connection, kind: Kind, project: str, stored_id: str) -> Stored:
    """Raises NotFound, also for a foreign one."""
    where = (stored.c.id == stored_id, stored.c.kind == kind, stored.c.project == project)
    row = connection.execute(select(stored).where(*where)).first()
    if row is None:
        hint = "It was stored with store=true, in this key's project?"
        raise NotFound(f"{NAMES[kind]} {stored_id[:80]!r} was not found.", hint=hint, param="id", code="not_found")
    return from_row(row)


def list_completions(connection: Connection, project: str, **filters: Any) -> tuple[list[Stored], bool]:
    """Stored chat completions, and whether there are more; `filters` as `_list` has them."""
    return _list(connection, "completion", project, **filters)


def list_responses(connection: Connection, project: str, **filters: Any) -> tuple[list[Stored], bool]:
    """The same of stored responses; those that have come to a good end only."""
    return _list(connection, "response", project, **filters)


def _list(
    connection: Connection,
    kind: Kind,
    project: str,
    *,
    model: str | None = None,
    metadata: dict[str, str] | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "asc",
    created_after: int | None = None,
    created_before: int | None = None,
) -> tuple[list[Stored], bool]:
    """`metadata` keeps those that have all its pairs; times are seconds, both ends included."""
    where: list[ColumnElement[bool]] = [stored.c.kind == kind, stored.c.project == project, stored.c.status == "completed"]
    where += [stored.c.metadata[key].as_string() == value for key, value in (metadata or {}).items()]
    if model is not None:
        where.append(stored.c.model == model)
    if created_after is not None:
        where.append(stored.c.created >= created_after)
    if created_before is not None:
        where.append(stored.c.created <= created_before)
    found = page(connection, stored, *where, after=after, limit=limit, order=order)
    return [from_row(row) for row in found.rows], found.has_more


def list_open_responses(connection: Connection) -> list[Stored]:
    """Of all projects, those that were begun in the background and have not ended."""
    where = (stored.c.kind == "response", stored.c.status.in_(("queued", "in_progress")))
    return [from_row(row) for row in connection.execute(select(stored).where(*where).order_by(stored.c.num))]


def set_metadata(connection: Connection, row: Stored, metadata: dict[str, str]) -> Stored:
    connection.execute(update(stored).where(stored.c.id == row.id).values(metadata=metadata))
    return replace(row, metadata=metadata)


def remove(connection: Connection, row: Stored) -> str | None:
    """Forgets a row; the hash of its blob, if that is nobody's now."""
    connection.execute(delete(stored).where(stored.c.id == row.id))
    if row.sha256 is None:
        return None
    return None if _num_uses(connection, row.sha256) else row.sha256


def _num_uses(connection: Connection, sha256: str) -> int:
    return sum(
        connection.execute(select(func.count()).select_from(table).where(table.c.sha256 == sha256)).scalar_one()
        for table in (files, stored)
    )
