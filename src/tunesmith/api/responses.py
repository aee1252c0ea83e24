"""/v1/responses: create (whole, as a stream, in the background), retrieve, delete, cancel, input items, input tokens.

A response is a chat turned around (`schemas/responses.py`), asked as chats are, and stored unless the client says no.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tunesmith.api.asking import Asked, Record, asked_of, count_tokens, read_events, whole, work
from tunesmith.api.background import Run
from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.stored import Limit, cut_page, settled
from tunesmith.api.streams import Stream, json_body, to_event, unless_gone
from tunesmith.db import stored
from tunesmith.db.keys import Key
from tunesmith.db.paging import Order
from tunesmith.errors import InvalidRequest
from tunesmith.schemas.response_events import Turned
from tunesmith.schemas.responses import check_include, check_responses
from tunesmith.serving.answer import EVENTS

router = APIRouter(prefix="/v1/responses")

ENDED = ("completed", "failed", "cancelled", "incomplete")
"""States that stay."""
AFTER_ANSWERS = [Depends(settled), needs("responses")]


@router.post("", dependencies=[needs("model.request")])
async def create(request: Request, desk: DeskDep, key: KeyDep) -> Response:
    body = await json_body(request)
    check_responses(body, desk.settings.engine)
    asked = await asked_of(request, desk, key, body)
    if body.get("background"):
        return await _in_background(desk, asked)
    answer = await unless_gone(request, asked.ask(is_stream=bool(body.get("stream"))))
    turned = Turned(asked.record.response)
    if body.get("stream"):
        return Stream(answer, _events(asked, read_events(answer, turned)))
    await unless_gone(request, whole(answer, turned))
    await asked.record.keep(desk)
    return JSONResponse(turned.response, headers=answer.headers)


async def _events(asked: Asked, events: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """The stream; the response is kept before its last event is sent, so that who has read it finds it."""
    async for group in events:
        if asked.record.response["status"] in ENDED:
            await asked.record.keep(asked.desk)
        yield b"".join(to_event(event, event["type"]) for event in group)


async def _in_background(desk: Desk, asked: Asked) -> Response:
    """Answers when the order is in the database: from then on it is not lost."""
    run = Run(Turned(asked.record.response))
    run.add(run.turned.created())
    await asked.record.keep(desk)
    await desk.keeper.settled()
    desk.background.start(run, work(asked, run))
    return _follow(run, -1) if asked.record.body.get("stream") else JSONResponse(asked.record.response)


def _follow(run: Run, after: int) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        async for event in run.follow(after):
            yield to_event(event, event["type"])

    return StreamingResponse(events(), media_type=EVENTS, headers={"cache-control": "no-cache"})


@router.post("/input_tokens", dependencies=[needs("model.request")])
async def count_input_tokens(request: Request, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    """How many tokens a question would have; without a model, for the first base."""
    body = await json_body(request)
    return {"object": "response.input_tokens", "input_tokens": await unless_gone(request, count_tokens(request, desk, key, body))}


@router.post("/compact", dependencies=[needs("model.request")])
async def compact() -> None:
    message = "Conversations are not made shorter here."
    raise InvalidRequest(message, hint="Send fewer items, or truncation=auto.", code="not_available")


@router.get("/{response_id}", dependencies=AFTER_ANSWERS)
async def retrieve(
    response_id: str, desk: DeskDep, key: KeyDep, stream: bool = False, starting_after: Annotated[int, Query(ge=0)] | None = None,
    include: Annotated[list[str] | None, Query(alias="include[]")] = None, include_obfuscation: bool = False,
) -> Response:
    """One in the background as it is now; with `stream` its events, those after `starting_after`."""
    check_include(include)
    found = await run_in_threadpool(_find, desk, key, response_id)
    run = desk.background.find(response_id)
    if not stream:
        return JSONResponse(found.response if run is None or run.ended_at is not None else run.turned.response)
    if run is None:
        message = "Only responses that are, or lately were, computed in the background can be followed."
        raise InvalidRequest(message, hint="Retrieve it without stream.", param="stream", code="invalid_value")
    return _follow(run, -1 if starting_after is None else starting_after)


@router.delete("/{response_id}", dependencies=AFTER_ANSWERS)
async def delete(response_id: str, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    await run_in_threadpool(_find, desk, key, response_id)
    await desk.background.cancel(response_id)
    desk.background.forget(response_id)
    await desk.keeper.settled()
    await run_in_threadpool(_remove, desk, key, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


def _remove(desk: Desk, key: Key, response_id: str) -> None:
    with desk.database.write() as connection:
        blob = stored.remove(connection, stored.get(connection, "response", key.project, response_id))
    if blob is not None:
        desk.store.delete(blob)


@router.post("/{response_id}/cancel", dependencies=AFTER_ANSWERS)
async def cancel(response_id: str, desk: DeskDep, key: KeyDep) -> Response:
    """Ends the work on one in the background; one that had ended is left as it is."""
    found = await run_in_threadpool(_find, desk, key, response_id)
    if not found.response["background"]:
        message = "Only responses in the background can be cancelled."
        raise InvalidRequest(message, hint="Close the connection instead.", param="id", code="invalid_value")
    run = await desk.background.cancel(response_id)
    if run is not None and run.turned.response["status"] not in ENDED:
        run.turned.cancel()
        await replace(found, response=run.turned.response).keep(desk)
    await desk.keeper.settled()
    return JSONResponse((await run_in_threadpool(_find, desk, key, response_id)).response)


@router.get("/{response_id}/input_items", dependencies=AFTER_ANSWERS)
async def list_input_items(
    response_id: str, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20, order: Order = "desc",
    include: Annotated[list[str] | None, Query(alias="include[]")] = None,
) -> dict[str, Any]:
    """What this response was asked; what came before it is with the responses before it."""
    check_include(include)
    return cut_page((await run_in_threadpool(_find, desk, key, response_id)).items, after, limit, order)


def _find(desk: Desk, key: Key, response_id: str) -> Record:
    """Raises NotFound."""
    with desk.database.read() as connection:
        row = stored.get(connection, "response", key.project, response_id)
    document = stored.document(desk.store, row)
    return Record(key.project, document["key"], document["request"], document["items"], document["answer"])
