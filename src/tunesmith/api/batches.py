"""/v1/batches: create, list, retrieve, cancel. What a batch does, its worker knows (`batches/run.py`)."""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs, room_for_a_job
from tunesmith.api.files import find
from tunesmith.db import jobs
from tunesmith.db.keys import Key
from tunesmith.errors import NotFound
from tunesmith.schemas import batches as wire
from tunesmith.schemas.common import to_list
from tunesmith.types import unix_now

router = APIRouter(prefix="/v1/batches", dependencies=[needs("batches")])

MAX_ATTEMPTS = 50
"""A batch may live through many restarts of its server in a day."""


@router.post("", dependencies=[room_for_a_job])
def create(body: wire.BatchCreate, desk: DeskDep, key: KeyDep) -> wire.Batch:
    file = find(desk, body.input_file_id, "input_file_id", key.project, "batch")
    now = unix_now()
    job = jobs.Job(
        id=f"batch_{secrets.token_hex(16)}",
        kind="batch",
        recipe=wire.to_recipe(body, now=now, concurrency=desk.settings.batch_concurrency).model_dump(mode="json"),
        order=wire.to_order(body) | {"input_file_id": file.id},
        metadata=body.metadata,
        created=now,
        project=key.project,
        key=key.id,
        max_attempts=MAX_ATTEMPTS,
    )
    job = desk.queue.submit(job)
    desk.supervisor.wake()
    return wire.from_row(job)


@router.get("")
def list_batches(
    desk: DeskDep, key: KeyDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    with desk.database.read() as connection:
        found, has_more = jobs.list_page(connection, after=after, limit=limit, kind="batch", project=key.project)
    listed = to_list([wire.from_row(job) for job in found], has_more=has_more)
    # The specification wants strings here, or nothing.
    return listed if found else {name: value for name, value in listed.items() if value is not None}


@router.get("/{batch_id}")
def retrieve(batch_id: str, desk: DeskDep, key: KeyDep) -> wire.Batch:
    return wire.from_row(_find(desk, batch_id, key))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, desk: DeskDep, key: KeyDep) -> wire.Batch:
    """Requests under way are finished, and what was answered is kept."""
    job = desk.queue.cancel(_find(desk, batch_id, key).id)
    desk.supervisor.wake()
    return wire.from_row(job)


def _find(desk: Desk, batch_id: str, key: Key) -> jobs.Job:
    """Raises NotFound, also for another project's batch."""
    try:
        with desk.database.read() as connection:
            return jobs.get_own(connection, batch_id, key.project, "batch")
    except NotFound as error:
        hint = "`client.batches.list()` shows what there is."
        raise NotFound(f"No batch found with id '{batch_id[:80]}'.", hint=hint, param="batch_id") from error
