"""/v1/fine_tuning/jobs/{id}/events: what happened, newest first, and /events/stream, oldest first, as it happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.fine_tuning import Limit, find_job
from tunesmith.db import events, jobs
from tunesmith.db.events import JobEvent
from tunesmith.schemas.common import to_list
from tunesmith.schemas.fine_tuning import event_from_row

router = APIRouter(prefix="/v1/fine_tuning/jobs", dependencies=[needs("fine_tuning")])

POLL_SECONDS = 0.5
SILENT_POLLS = 30
"""After so many polls without an event a comment is sent, lest a proxy takes the stream for dead."""


@router.get("/{job_id}/events")
def list_events(job_id: str, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    find_job(desk, job_id, key)
    with desk.database.read() as connection:
        found, has_more = events.list_page(connection, job_id, after=after, limit=limit)
    return to_list([event_from_row(event) for event in found], has_more=has_more)


@router.get("/{job_id}/events/stream")
async def stream(
    job_id: str, desk: DeskDep, key: KeyDep, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Server-sent events: each with its id, so that a client which was cut off goes on with `Last-Event-ID`; at the job's end
    `data: [DONE]`."""
    await run_in_threadpool(find_job, desk, job_id, key)
    first = await run_in_threadpool(_since, desk, job_id, last_event_id)
    return StreamingResponse(_sent(desk, job_id, last_event_id, first), media_type="text/event-stream",
                             headers={"cache-control": "no-cache"})


def _since(desk: Desk, job_id: str, after: str | None) -> tuple[list[JobEvent], bool]:
    """Events after one, oldest first, and whether no more will come. Raises InvalidRequest for an unknown `after`."""
    with desk.database.read() as connection:  # one transaction: an event before the job's end is not missed
        return events.list_since(connection, job_id, after), jobs.get(connection, job_id).is_finished


async def _sent(desk: Desk, job_id: str, last: str | None, found: tuple[list[JobEvent], bool]) -> AsyncIterator[str]:
    silent = 0
    while True:
        for event in found[0]:
            last = event.id
            shown = event_from_row(event)
            yield f"id: {last}\nevent: {shown.type}\ndata: {json.dumps(shown.model_dump())}\n\n"
        if found[1]:
            yield "data: [DONE]\n\n"
            return
        silent = 0 if found[0] else silent + 1
        if silent % SILENT_POLLS == SILENT_POLLS - 1:
            yield ": still here\n\n"
        await asyncio.sleep(POLL_SECONDS)
        found = await run_in_threadpool(_since, desk, job_id, last)
