"""Files and uploads on the wire."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from tunesmith.db.files import File
from tunesmith.db.uploads import Part, Upload
from tunesmith.schemas.common import Body, Sparse, Wire

Purpose = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
OUTPUTS = ("batch_output", "fine-tune-results")
"""Purposes of files that only the desk makes."""

MIN_SECONDS, MAX_SECONDS = 3600, 2_592_000
MAX_UPLOAD_BYTES = 8 * 1024**3
MAX_PART_BYTES = 64 * 1024**2


class ExpiresAfter(Body):
    """How long a file stays: seconds after it was made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=MIN_SECONDS, le=MAX_SECONDS)]


class UploadCreate(Body):
    """An order of OpenAI's: `bytes` is the size of the whole file."""

    filename: Annotated[str, Field(min_length=1, max_length=1024)]
    purpose: Purpose
    bytes: Annotated[int, Field(ge=1, le=MAX_UPLOAD_BYTES)]
    mime_type: Annotated[str, Field(max_length=255)]
    expires_after: ExpiresAfter | None = None


class UploadComplete(Body):
    part_ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    md5: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None


class FileObject(Sparse):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class UploadObject(Sparse):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None = None


class PartObject(Wire):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


def from_row(file: File) -> FileObject:
    return FileObject(
        id=file.id, bytes=file.num_bytes, created_at=file.created, expires_at=file.expires, filename=file.filename,
        purpose=file.purpose,
    )  # fmt: skip


def from_upload(upload: Upload, file: File | None = None) -> UploadObject:
    return UploadObject(
        id=upload.id, bytes=upload.num_bytes, created_at=upload.created, expires_at=upload.expires, filename=upload.filename,
        purpose=upload.purpose, status=upload.status, file=None if file is None else from_row(file),
    )  # fmt: skip


def from_part(part: Part) -> PartObject:
    return PartObject(id=part.id, created_at=part.created, upload_id=part.upload_id)
