"""/v1/files: upload (streamed to the store), list, retrieve, content, delete."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.multipart import Form, file_chunks
from tunesmith.db import blobs, files
from tunesmith.db.paging import Order
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.jobs import result_file
from tunesmith.schemas.common import Deleted, to_list
from tunesmith.schemas.files import MAX_SECONDS, MIN_SECONDS, OUTPUTS, PURPOSES, FileObject, from_row
from tunesmith.types import new_id, unix_now

router = APIRouter(prefix="/v1/files", dependencies=[needs("files")])

MAX_NAME = 255
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FIELDS = {"purpose", ANCHOR, SECONDS}
RECEIVING = CapacityLimiter(64)
"""Bodies that are received at the same time; they have threads of their own, so that slow senders keep nobody else waiting."""

T = TypeVar("T")


@router.post("")
async def create(request: Request, desk: DeskDep, key: KeyDep) -> FileObject:
    content_type = request.headers.get("content-type", "")
    return await received(request, lambda body: _store(desk, key.project, content_type, body))


async def received(request: Request, keep: Callable[[Iterator[bytes]], T]) -> T:
    """Runs `keep` on the request's body in a worker thread: the body comes over from the event loop piece by piece, so that
    a slow disk slows the sender."""
    body = _pulled(request.stream())
    return await to_thread.run_sync(lambda: keep(body), limiter=RECEIVING)


def _pulled(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    async def following() -> bytes | None:
        return await anext(stream, None)

    while (chunk := from_thread.run(following)) is not None:
        yield chunk


def _store(desk: Desk, project: str, content_type: str, body: Iterator[bytes]) -> FileObject:
    form = Form()
    blob = desk.store.put(file_chunks(body, content_type, form, _check), max_bytes=desk.settings.max_upload_bytes)
    now = unix_now()
    expires = now + int(form.fields[SECONDS]) if SECONDS in form.fields else None
    name, purpose = clean_name(form.filename or ""), form.fields["purpose"]
    file = files.File(new_id("file"), name, purpose, blob.num_bytes, blob.sha256, now, project, expires)
    with desk.database.write() as connection:
        desk.store.check(blob.sha256)  # a deletion of the same content may have come between
        files.add(connection, file)
    return from_row(file)


def _check(form: Form) -> None:
    unknown = sorted(set(form.fields) - FIELDS)
    if unknown:
        message = f"Unrecognized request argument supplied: {unknown[0]}."
        raise InvalidRequest(message, hint="Leave it out.", param=unknown[0], code="unknown_parameter")
    purpose = form.fields.get("purpose")
    if purpose not in PURPOSES:
        message = f"purpose must be one of {', '.join(PURPOSES)}."
        hint = "Only the server makes files of that purpose." if purpose in OUTPUTS else "For training it is fine-tune."
        raise InvalidRequest(message, hint=hint, param="purpose", code="invalid_value")
    _check_expiry(form.fields)


def _check_expiry(fields: dict[str, str]) -> None:
    if ANCHOR not in fields and SECONDS not in fields:
        return
    if fields.get(ANCHOR) != "created_at":
        message = f"{ANCHOR} must be created_at."
        raise InvalidRequest(message, hint="It is the only anchor there is.", param=ANCHOR, code="invalid_value")
    text = fields.get(SECONDS, "")
    if not re.fullmatch("[0-9]{1,9}", text) or not MIN_SECONDS <= int(text) <= MAX_SECONDS:
        message = f"{SECONDS} must be a whole number from {MIN_SECONDS} to {MAX_SECONDS}."
        raise InvalidRequest(message, hint="An hour is 3600.", param=SECONDS, code="invalid_value")


def clean_name(name: str) -> str:
    """The client's file name for people: no folders, no control characters, not longer than 255; never used as a path."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[\x00-\x1f\x7f]", "", last)[:MAX_NAME] or "upload"


@router.get("")
def list_files(
    desk: DeskDep,
    key: KeyDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
    purpose: str | None = None,
) -> dict[str, Any]:
    with desk.database.read() as connection:
        found, has_more = files.list_page(connection, key.project, after=after, limit=limit, order=order, purpose=purpose)
    listed = to_list([from_row(file) for file in found], has_more=has_more)
    # OpenAI's specification wants strings here, also where nothing is listed.
    return listed if found else listed | {"first_id": "", "last_id": ""}


@router.get("/{file_id}")
def retrieve(file_id: str, desk: DeskDep, key: KeyDep) -> FileObject:
    with desk.database.read() as connection:
        return from_row(files.get(connection, file_id, key.project))


@router.get("/{file_id}/content")
def content(request: Request, file_id: str, desk: DeskDep, key: KeyDep) -> Response:
    """The bytes as they came, from wherever the store has them; marked so that no browser shows them as a page of ours.

    A job's numbers come in base64, as OpenAI serves them and scripts expect it; who accepts text/csv gets the CSV itself.
    """
    with desk.database.read() as connection:
        file = files.get(connection, file_id, key.project)
    headers = {
        "content-disposition": f"attachment; filename*=utf-8''{quote(file.filename, safe='')}",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
    }
    if file.purpose == result_file.PURPOSE:
        is_csv, table = "text/csv" in ",".join(request.headers.getlist("accept")), desk.store.read(file.sha256)
        return Response(table if is_csv else b64encode(table), media_type="text/csv" if is_csv else "text/plain", headers=headers)
    headers["content-length"] = str(file.num_bytes)
    return StreamingResponse(desk.store.chunks(file.sha256), media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}")
def delete(file_id: str, desk: DeskDep, key: KeyDep) -> Deleted:
    """Jobs that have been validated keep their own link to the bytes."""
    with desk.database.write() as connection:
        file = files.remove(connection, file_id, key.project)
        for sha256 in blobs.unused(connection, [file.sha256]):
            desk.store.delete(sha256)
    return Deleted(id=file_id, object="file")


def find_for_training(desk: Desk, file_id: str, param: str, project: str) -> files.File:
    """The file that a job names in `param`. Raises InvalidRequest when there is none or it was uploaded for something else."""
    return find(desk, file_id, param, project, "fine-tune")


def find(desk: Desk, file_id: str, param: str, project: str, purpose: str) -> files.File:
    """The project's file that an order names in `param`, of that purpose. Raises InvalidRequest."""
    try:
        with desk.database.read() as connection:
            file = files.get(connection, file_id, project)
    except NotFound as error:
        message = f"There is no file {file_id[:80]!r}."
        raise InvalidRequest(message, hint="Upload it first.", param=param, code="file_not_found") from error
    if file.purpose != purpose:
        message, hint = f"File {file_id} was uploaded with purpose {file.purpose!r}.", f'Upload it with purpose "{purpose}".'
        raise InvalidRequest(message, hint=hint, param=param, code="wrong_purpose")
    return file
