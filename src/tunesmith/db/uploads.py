"""Uploads in parts: what a file shall become, and the parts that have come. Does not open blobs.

    pending --complete--> completed
       |-----cancel-----> cancelled        each part is a blob of its own until the upload is over
       +-----an hour----> expired          at once for every client; the parts go when somebody sweeps
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select, update

from tunesmith.db.tables import upload_parts, uploads
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.types import unix_now

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]


@dataclass(frozen=True)
class Upload:
    """`num_bytes` is what was declared; `file_seconds` is how long the file shall stay, None for always."""

    id: str
    project: str
    filename: str
    purpose: str
    num_bytes: int
    created: int
    expires: int
    status: UploadStatus = "pending"
    file_seconds: int | None = None
    file_id: str | None = None
    part_ids: list[str] | None = None


@dataclass(frozen=True)
class Part:
    id: str
    upload_id: str
    num_bytes: int
    sha256: str
    created: int


def from_row(row: Row[Any]) -> Upload:
    """An upload that waited too long is `expired`, whatever its row says yet."""
    values = dict(row._mapping)
    del values["num"]
    if values["status"] == "pending" and values["expires"] <= unix_now():
        values["status"] = "expired"
    return Upload(**values)


def _part(row: Row[Any]) -> Part:
    values = dict(row._mapping)
    del values["num"]
    return Part(**values)


def add(connection: Connection, upload: Upload) -> None:
    connection.execute(insert(uploads).values(asdict(upload)))


def get(connection: Connection, upload_id: str, project: str) -> Upload:
    """An upload of the project. Raises NotFound."""
    row = connection.execute(select(uploads).where(uploads.c.id == upload_id, uploads.c.project == project)).first()
    if row is None:
        message = f"No such Upload object: {upload_id[:80]}."
        raise NotFound(message, hint="`client.uploads.create()` begins one.", param="upload_id")
    return from_row(row)


def get_pending(connection: Connection, upload_id: str, project: str) -> Upload:
    """The same, if it still takes parts. Raises NotFound, InvalidRequest."""
    upload = get(connection, upload_id, project)
    if upload.status != "pending":
        message = f"Upload {upload.id} is {upload.status}."
        raise InvalidRequest(message, hint="Begin a new upload.", param="upload_id", code=f"upload_{upload.status}")
    return upload


def add_part(connection: Connection, part: Part) -> None:
    connection.execute(insert(upload_parts).values(asdict(part)))


def parts(connection: Connection, upload_id: str) -> list[Part]:
    """As they came."""
    mine = select(upload_parts).where(upload_parts.c.upload_id == upload_id).order_by(upload_parts.c.num)
    return [_part(row) for row in connection.execute(mine)]


def end(connection: Connection, upload: Upload, status: UploadStatus, **values: Any) -> tuple[Upload, list[Part]]:
    """The upload in its final state, and its parts, which were."""
    row = connection.execute(
        update(uploads).where(uploads.c.id == upload.id).values(status=status, **values).returning(uploads)
    ).one()
    gone = connection.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload.id).returning(upload_parts)).all()
    return from_row(row), [_part(part) for part in gone]


def end_expired(connection: Connection) -> list[Part]:
    """Ends the uploads whose time is over; their parts, which were."""
    late = select(uploads).where(uploads.c.status == "pending", uploads.c.expires <= unix_now())
    expired = [from_row(row) for row in connection.execute(late)]
    return [part for upload in expired for part in end(connection, upload, "expired")[1]]
