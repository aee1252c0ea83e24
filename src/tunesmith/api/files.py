"""/v1/files: upload (streamed to the store), list, retrieve, content, delete."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, get_args

from anyio import from_thread
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from tunesmith.api.deps import Desk, DeskDep
from tunesmith.api.multipart import Form, file_chunks
from tunesmith.db import files
from tunesmith.db.paging import Order
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.schemas.common import Deleted, to_list
from tunesmith.schemas.files import FileObject, Purpose, from_row
from tunesmith.types import new_id, unix_now

router = APIRouter(prefix="/v1/files")

MAX_NAME = 255


@router.post("")
async def create(request: Request, desk: DeskDep) -> FileObject:
    content_type = request.headers.get("content-type", "")
    stream = request.stream()
    return await run_in_threadpool(_store, desk, content_type, stream)


def _store(desk: Desk, content_type: str, stream: AsyncIterator[bytes]) -> FileObject:
    """In a worker thread: the body comes over from the event loop chunk by chunk, so a slow disk slows the sender."""
    form = Form()
    chunks = file_chunks(_pulled(stream), content_type, form, _check)
    blob = desk.store.put(chunks, max_bytes=desk.settings.max_upload_bytes)
    name = clean_name(form.filename or "")
    file = files.File(new_id("file"), name, form.fields["purpose"], blob.num_bytes, blob.sha256, unix_now())
    with desk.database.write() as connection:
        desk.store.path(blob.sha256)  # a deletion of the same content may have come between
        files.add(connection, file)
    return from_row(file)


def _pulled(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    async def following() -> bytes | None:
        return await anext(stream, None)

    while (chunk := from_thread.run(following)) is not None:
        yield chunk


def _check(form: Form) -> None:
    unknown = sorted(set(form.fields) - {"purpose"})
    if unknown:
        message = f"Unrecognized request argument supplied: {unknown[0]}."
        raise InvalidRequest(message, hint="Leave it out.", param=unknown[0], code="unknown_parameter")
    allowed = get_args(Purpose)
    if form.fields.get("purpose") not in allowed:
        message = f"purpose must be one of {', '.join(allowed)}."
        raise InvalidRequest(message, hint="For training it is fine-tune.", param="purpose", code="invalid_value")


def clean_name(name: str) -> str:
    """The client's file name for people: no folders, no control characters, not longer than 255; never used as a path."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[\x00-\x1f\x7f]", "", last)[:MAX_NAME] or "upload"


@router.get("")
def list_files(
    desk: DeskDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
    purpose: str | None = None,
) -> dict[str, Any]:
    with desk.database.read() as connection:
        found, has_more = files.list_page(connection, after=after, limit=limit, order=order, purpose=purpose)
    return to_list([from_row(file) for file in found], has_more=has_more)


@router.get("/{file_id}")
def retrieve(file_id: str, desk: DeskDep) -> FileObject:
    with desk.database.read() as connection:
        return from_row(files.get(connection, file_id))


@router.get("/{file_id}/content")
def content(file_id: str, desk: DeskDep) -> FileResponse:
    """The bytes as they came; marked so that no browser shows them as a page of ours."""
    with desk.database.read() as connection:
        file = files.get(connection, file_id)
    headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
    path = desk.store.path(file.sha256)
    return FileResponse(path, media_type="application/octet-stream", filename=file.filename, headers=headers)


@router.delete("/{file_id}")
def delete(file_id: str, desk: DeskDep) -> Deleted:
    """Jobs that have been validated keep their own link to the bytes."""
    with desk.database.write() as connection:
        file, is_last = files.remove(connection, file_id)
        if is_last:
            desk.store.delete(file.sha256)
    return Deleted(id=file_id, object="file")


def find_for_training(desk: Desk, file_id: str, param: str) -> files.File:
    """The file that a job names in `param`. Raises InvalidRequest when there is none or it was uploaded for something else."""
    try:
        with desk.database.read() as connection:
            file = files.get(connection, file_id)
    except NotFound as error:
        message = f"There is no file {file_id[:80]!r}."
        raise InvalidRequest(message, hint="Upload it first.", param=param, code="file_not_found") from error
    if file.purpose != "fine-tune":
        raise InvalidRequest(
            f"File {file_id} was uploaded with purpose {file.purpose!r}.",
            hint='Upload it with purpose "fine-tune".',
            param=param,
            code="wrong_purpose",
        )
    return file
