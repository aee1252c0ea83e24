"""/v1/uploads: a large file in parts. Each part that was answered is kept, also when the server is killed.

The order of the parts is said at the end. The whole is then a file like any other.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NoReturn

from fastapi import APIRouter, Request

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.files import clean_name, received
from tunesmith.api.multipart import Form, file_chunks
from tunesmith.db import blobs, files, uploads
from tunesmith.db.uploads import Part, Upload
from tunesmith.errors import InvalidRequest
from tunesmith.schemas.files import MAX_PART_BYTES, PartObject, UploadComplete, UploadCreate, UploadObject, from_part, from_upload
from tunesmith.types import new_id, unix_now

router = APIRouter(prefix="/v1/uploads", dependencies=[needs("files")])

LIFE_SECONDS = 3600
"""How long an upload takes parts."""


@router.post("")
def create(body: UploadCreate, desk: DeskDep, key: KeyDep) -> UploadObject:
    now = unix_now()
    upload = Upload(
        id=new_id("upload"),
        project=key.project,
        filename=clean_name(body.filename),
        purpose=body.purpose,
        num_bytes=body.bytes,
        created=now,
        expires=now + LIFE_SECONDS,
        file_seconds=None if body.expires_after is None else body.expires_after.seconds,
    )
    with desk.database.write() as connection:
        uploads.add(connection, upload)
    return from_upload(upload)


@router.post("/{upload_id}/parts")
async def add_part(upload_id: str, request: Request, desk: DeskDep, key: KeyDep) -> PartObject:
    """Parts may come side by side, and in any order."""
    content_type = request.headers.get("content-type", "")
    return await received(request, lambda body: _keep_part(desk, key.project, upload_id, content_type, body))


def _keep_part(desk: Desk, project: str, upload_id: str, content_type: str, body: Iterator[bytes]) -> PartObject:
    with desk.database.read() as connection:
        uploads.get_pending(connection, upload_id, project)
    chunks = file_chunks(body, content_type, Form(), _check_part, part="data")
    blob = desk.store.put(chunks, max_bytes=MAX_PART_BYTES, param="data")
    part = Part(new_id("part"), upload_id, blob.num_bytes, blob.sha256, unix_now())
    with desk.database.write() as connection:
        upload = uploads.get_pending(connection, upload_id, project)
        desk.store.check(blob.sha256)  # a deletion of the same content may have come between
        have = sum(each.num_bytes for each in uploads.parts(connection, upload_id))
        if have + part.num_bytes > upload.num_bytes:
            message = f"The parts have more than the {upload.num_bytes} bytes that were declared."
            raise InvalidRequest(message, hint="Declare the size of the whole file.", param="data", code="upload_too_large")
        uploads.add_part(connection, part)
    return from_part(part)


def _check_part(form: Form) -> None:
    for name in form.fields:
        message = f"Unrecognized request argument supplied: {name[:80]}."
        raise InvalidRequest(message, hint="Send the bytes as `data`.", param=name, code="unknown_parameter")


@router.post("/{upload_id}/complete")
def complete(upload_id: str, body: UploadComplete, desk: DeskDep, key: KeyDep) -> UploadObject:
    """Makes the file. Asked again with the same parts, because the answer was lost, it answers the same."""
    with desk.database.read() as connection:
        upload = uploads.get(connection, upload_id, key.project)
        if upload.status == "completed" and upload.part_ids == body.part_ids:
            return from_upload(upload, files.get(connection, str(upload.file_id), key.project))
        upload = uploads.get_pending(connection, upload_id, key.project)
        parts = _in_order(upload, uploads.parts(connection, upload_id), body.part_ids)
    digest = hashlib.md5(usedforsecurity=False)
    blob = desk.store.put(_joined(desk, parts, digest.update))
    if body.md5 is not None and digest.hexdigest() != body.md5.lower():
        _drop(desk, [blob.sha256])
        _refuse(f"The bytes have the md5 {digest.hexdigest()}.", "Compare what was sent, and the order of the parts.", "md5")
    now = unix_now()
    expires = None if upload.file_seconds is None else now + upload.file_seconds
    file = files.File(
        new_id("file"), upload.filename, upload.purpose, blob.num_bytes, blob.sha256, now, upload.project, expires
    )
    with desk.database.write() as connection:
        upload = uploads.get_pending(connection, upload_id, key.project)
        desk.store.check(blob.sha256)
        files.add(connection, file)
        upload, gone = uploads.end(connection, upload, "completed", file_id=file.id, part_ids=body.part_ids)
        for sha256 in blobs.unused(connection, [part.sha256 for part in gone]):
            desk.store.delete(sha256)
    return from_upload(upload, file)


def _in_order(upload: Upload, parts: list[Part], part_ids: list[str]) -> list[Part]:
    """The parts that were named, if they make the whole. Raises InvalidRequest."""
    by_id = {part.id: part for part in parts}
    for part_id in part_ids:
        if part_id not in by_id:
            _refuse(f"Upload {upload.id} has no part {part_id[:80]!r}.", "Name the ids that adding parts answered.", "part_ids")
    if len(set(part_ids)) != len(part_ids):
        _refuse("A part is named twice.", "Name each once, in the order of the file.", "part_ids")
    total = sum(by_id[part_id].num_bytes for part_id in part_ids)
    if total != upload.num_bytes:
        _refuse(f"The parts have {total} bytes; {upload.num_bytes} were declared.", "Add what is missing.", "part_ids")
    return [by_id[part_id] for part_id in part_ids]


def _joined(desk: Desk, parts: list[Part], see: Callable[[bytes], object]) -> Iterator[bytes]:
    for part in parts:
        for chunk in desk.store.chunks(part.sha256):
            see(chunk)
            yield chunk


def _drop(desk: Desk, hashes: list[str]) -> None:
    """Blobs that nobody has any more."""
    with desk.database.write() as connection:
        for sha256 in blobs.unused(connection, hashes):
            desk.store.delete(sha256)


def _refuse(message: str, hint: str, param: str) -> NoReturn:
    raise InvalidRequest(message, hint=hint, param=param, code="invalid_value")


@router.post("/{upload_id}/cancel")
def cancel(upload_id: str, desk: DeskDep, key: KeyDep) -> UploadObject:
    """No part may be added any more; those that came are gone."""
    with desk.database.write() as connection:
        upload = uploads.get_pending(connection, upload_id, key.project)
        upload, gone = uploads.end(connection, upload, "cancelled")
        for sha256 in blobs.unused(connection, [part.sha256 for part in gone]):
            desk.store.delete(sha256)
    return from_upload(upload)
