"""Files on the wire."""

from typing import Literal

from tunesmith.db.files import File
from tunesmith.schemas.common import Sparse

Purpose = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]


class FileObject(Sparse):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None


def from_row(file: File) -> FileObject:
    return FileObject(id=file.id, bytes=file.num_bytes, created_at=file.created, filename=file.filename, purpose=file.purpose)
