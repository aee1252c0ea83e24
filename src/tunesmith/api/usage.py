"""/v1/usage: requests and tokens per day, and by key, project, model or adapter; as JSON or CSV."""

from datetime import date, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.limits import today
from tunesmith.api.projects import reach
from tunesmith.db import usage
from tunesmith.db.usage import By
from tunesmith.schemas.usage import DAYS, UsageRow, from_used, to_csv, to_groups
from tunesmith.types import unix_now

router = APIRouter(prefix="/v1/usage", dependencies=[needs("usage.read")])


@router.get("")
async def report(
    desk: DeskDep, key: KeyDep, by: str = "", project: str | None = None, start: date | None = None, end: date | None = None,
    format: Annotated[Literal["json", "csv"], Query()] = "json",
) -> Any:  # fmt: skip
    """Days are UTC's, both ends included; what was counted is there at once."""
    groups = to_groups(by)
    last = end or date.fromisoformat(today(unix_now()))
    first = start or last - timedelta(days=DAYS - 1)
    await desk.admission.meter.flush(touch=False)
    whose = await run_in_threadpool(reach, desk, key, project)
    rows = await run_in_threadpool(_read, desk, groups, first, last, whose)
    if format == "csv":
        return Response(to_csv(rows, groups), media_type="text/csv")
    return {"object": "list", "data": [row.model_dump() for row in rows], "has_more": False}


def _read(desk: Desk, groups: tuple[By, ...], first: date, last: date, project: str | None) -> list[UsageRow]:
    with desk.database.read() as connection:
        found = usage.report(connection, by=groups, start=first.isoformat(), end=last.isoformat(), project=project)
    return [from_used(used, groups) for used in found]
