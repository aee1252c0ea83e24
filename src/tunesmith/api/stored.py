"""/v1/chat/completions, once more: those that were stored with `store: true`. List, retrieve, label, delete, their messages."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.db import stored
from tunesmith.db.paging import Order
from tunesmith.errors import InvalidRequest
from tunesmith.schemas import chat as wire
from tunesmith.schemas.common import Body
from tunesmith.schemas.fields import check_metadata

PAIR = re.compile(r"metadata\[(.*)\]", re.DOTALL)
Limit = Annotated[int, Query(ge=1, le=100)]


async def settled(desk: DeskDep) -> None:
    """Waits until what was answered before is in the database."""
    await desk.keeper.settled()


router = APIRouter(prefix="/v1/chat/completions", dependencies=[Depends(settled), needs("completions")])


class Update(Body):
    metadata: dict[str, Any] | None


@router.get("")
def list_completions(
    request: Request, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20, order: Order = "asc",
    model: str | None = None,
) -> dict[str, Any]:
    """Oldest first; `metadata[key]=value` keeps those that have all pairs."""
    with desk.database.read() as connection:
        found, has_more = stored.list_completions(
            connection, key.project, model=model, metadata=metadata_pairs(request), after=after, limit=limit, order=order
        )
    return to_page([_shown(desk, row) for row in found], has_more)


@router.get("/{completion_id}")
def retrieve(completion_id: str, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    with desk.database.read() as connection:
        row = stored.get(connection, "completion", key.project, completion_id)
    return _shown(desk, row)


@router.post("/{completion_id}")
def update(completion_id: str, body: Update, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    metadata = check_metadata(body.metadata)
    with desk.database.write() as connection:
        row = stored.get(connection, "completion", key.project, completion_id)
        row = stored.set_metadata(connection, row, metadata)
    return _shown(desk, row)


@router.delete("/{completion_id}")
def delete(completion_id: str, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    with desk.database.write() as connection:
        row = stored.get(connection, "completion", key.project, completion_id)
        blob = stored.remove(connection, row)
    if blob is not None:
        desk.store.delete(blob)
    return {"object": "chat.completion.deleted", "id": completion_id, "deleted": True}


@router.get("/{completion_id}/messages")
def list_messages(
    completion_id: str, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20, order: Order = "asc"
) -> dict[str, Any]:
    """What was asked, message by message."""
    with desk.database.read() as connection:
        row = stored.get(connection, "completion", key.project, completion_id)
    return cut_page(wire.kept_messages(stored.document(desk.store, row)), after, limit, order)


def _shown(desk: Desk, row: stored.Stored) -> dict[str, Any]:
    return wire.kept_completion(stored.document(desk.store, row), row.metadata)


def metadata_pairs(request: Request) -> dict[str, str]:
    """The pairs of a query's `metadata[key]=value`. Raises InvalidRequest for a key that cannot be looked for."""
    found = ((PAIR.fullmatch(name), value) for name, value in request.query_params.items())
    pairs = {match[1]: value for match, value in found if match is not None}
    if any('"' in text or "\\" in text for text in pairs):
        raise InvalidRequest("A key of metadata with quotes cannot be looked for.", param="metadata", code="invalid_value")
    return check_metadata(pairs)


def to_page(items: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    first, last = (items[0]["id"], items[-1]["id"]) if items else ("", "")
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}


def cut_page(items: list[dict[str, Any]], after: str | None, limit: int, order: Order) -> dict[str, Any]:
    """A page of a list that is wholly there, oldest first. Raises InvalidRequest for an unknown `after`."""
    ordered = items if order == "asc" else items[::-1]
    if after is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise InvalidRequest(f"There is no {after[:80]!r} to list from.", hint="Pass the last id of a page.", param="after")
        ordered = ordered[ids.index(after) + 1:]
    return to_page(ordered[:limit], len(ordered) > limit)
