"""How a response is asked and kept: the conversation it goes on with, the engine's answer read into it, its row."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from tunesmith.api.background import Run
from tunesmith.api.chat import ask_engine, with_priority
from tunesmith.api.deps import Desk
from tunesmith.api.resolve import target_of
from tunesmith.api.streams import data_of, each_event
from tunesmith.completer import failure
from tunesmith.db import keys, stored
from tunesmith.db.keys import Key
from tunesmith.errors import InvalidRequest, NotFound, Overloaded, TunesmithError
from tunesmith.schemas.fields import check
from tunesmith.schemas.response_events import Turned
from tunesmith.schemas.response_items import to_items, to_messages, without_oldest
from tunesmith.schemas.responses import COUNTED, PARAMS, RESPONSES, begin, to_chat
from tunesmith.serving.answer import Answer
from tunesmith.serving.routing import CHAT, TOKENIZE, Target
from tunesmith.types import unix_now

Json = dict[str, Any]

MAX_CHAIN = 1000
"""Responses that one may go on with."""

log = structlog.get_logger("tunesmith.api")


@dataclass(frozen=True)
class Record:
    """What is kept of a response: whose it is, what was asked (`items` are this turn's own), and what was made of it."""

    project: str
    key_id: str
    body: Json
    items: list[Json]
    response: Json

    def row(self) -> stored.Stored:
        made = self.response
        document = {"request": self.body, "items": self.items, "answer": made, "key": self.key_id}
        return stored.Stored(
            made["id"], "response", self.project, made["model"], int(made["created_at"]), made["metadata"],
            stored.to_document(document), status=made["status"],
        )  # fmt: skip

    async def keep(self, desk: Desk) -> None:
        """Stores it as it is now, unless the client wants it not to be."""
        if self.response["store"]:
            await desk.keeper.keep(self.row())


@dataclass(frozen=True)
class Asked:
    """A question on its way; `question` holds the whole conversation."""

    desk: Desk
    key: Key
    target: Target
    question: Json
    record: Record

    async def ask(self, *, is_stream: bool) -> Answer:
        """The engine's answer. Raises what the engine refuses, in the client's words.

        With `truncation: auto`, a conversation that is too long loses its oldest messages until it is not.
        """
        question = self.question | ({"stream": True, "stream_options": {"include_usage": True}} if is_stream else {})
        while True:
            answer = await ask_engine(self.desk, self.key, self.target, CHAT, question)
            if answer.status < 400:
                return answer
            error = refusal(answer.status, await answer.read())
            shorter = without_oldest(question["messages"]) if self.record.body.get("truncation") == "auto" else None
            if error.code != "context_length_exceeded" or shorter is None:
                raise error
            question = question | {"messages": shorter}


async def asked_of(request: Request, desk: Desk, key: Key, body: Json) -> Asked:
    """Of a checked body. Raises InvalidRequest, NotFound."""
    target = await target_of(desk, body.get("model"), key.project)
    question, items = await _question(desk, key, body)
    record = Record(key.project, key.id, body, items, begin(body, target.model_id, unix_now()))
    return Asked(desk, key, target, with_priority(request, desk, question), record)


async def _question(desk: Desk, key: Key, body: Json) -> tuple[Json, list[Json]]:
    """The question to an engine, and the items of this turn."""
    if body.get("input") is None:
        raise InvalidRequest("Missing required parameter: input.", param="input", code="missing_required_parameter")
    items = to_items(body["input"])
    before: list[Json] = []
    if body.get("previous_response_id"):
        await desk.keeper.settled()
        before = await run_in_threadpool(_context, desk, key.project, body["previous_response_id"])
    question = to_chat(body, to_messages(before + items))
    if desk.settings.engine != "embedded":
        question.pop("priority", None)  # the word of our own engine
    return question, items


def _context(desk: Desk, project: str, response_id: str) -> list[Json]:
    """What was said up to and with that response, oldest first. Raises InvalidRequest."""
    turns: list[list[Json]] = []
    wanted: str | None = response_id
    with desk.database.read() as connection:
        while wanted is not None:
            if len(turns) == MAX_CHAIN:
                hint = "Begin a new one."
                raise InvalidRequest(f"A conversation has at most {MAX_CHAIN} turns.", hint=hint, param="previous_response_id")
            try:
                row = stored.get(connection, "response", project, wanted)
            except NotFound as error:
                message = f"Previous response with id {wanted[:80]!r} not found."
                param = "previous_response_id"
                raise InvalidRequest(message, hint=error.hint, param=param, code="previous_response_not_found") from error
            document = stored.document(desk.store, row)
            if row.status in {"queued", "in_progress"}:
                message = f"The response {wanted} has not ended yet."
                raise InvalidRequest(message, hint="Wait for it.", param="previous_response_id", code="invalid_value")
            turns.append(document["items"] + document["answer"]["output"])
            wanted = document["answer"]["previous_response_id"]
    return [item for turn in reversed(turns) for item in turn]


async def count_tokens(request: Request, desk: Desk, key: Key, body: Json) -> int:
    """Tokens of a question's prompt, by the model's own tokenizer. Raises InvalidRequest."""
    check({name: RESPONSES[name] for name in COUNTED}, body)
    question, _ = await _question(desk, key, body)
    target = await target_of(desk, body.get("model") or desk.settings.bases[0], key.project)
    fields: Json = {name: question[name] for name in ("messages", "tools") if name in question}
    answer = await ask_engine(desk, key, target, TOKENIZE, fields)
    content = await answer.read()
    if answer.status >= 400:
        raise refusal(answer.status, content)
    return int(json.loads(content)["count"])


def refusal(status: int, content: bytes) -> TunesmithError:
    """An engine's error, with the field as the client named it."""
    error = failure(status, content)
    if status == 429:
        error = Overloaded(error.message, code=error.code)
    error.param = PARAMS.get(error.param, error.param) if error.param is not None else None
    return error


async def whole(answer: Answer, turned: Turned) -> None:
    """Reads an answer that is no stream into the response."""
    content = json.loads(await answer.read())
    turned.created()
    turned.started()
    turned.feed(content)
    turned.end()


async def read_events(answer: Answer, turned: Turned) -> AsyncIterator[list[Json]]:
    """Reads a stream into the response; yields what each piece of it causes. An engine that dies makes it `failed`."""
    if not turned.response["background"]:
        yield turned.created()
    yield turned.started()
    async for event in each_event(answer):
        chunk = data_of(event)
        if chunk is None:
            continue
        if "error" in chunk:
            yield turned.fail("server_error", str(chunk["error"].get("message", "")))
            return
        events = turned.feed(chunk)
        if events:
            yield events
    yield turned.end()


async def work(asked: Asked, run: Run) -> None:
    """Computes a response in the background, to its end; whatever stops it is told in it."""
    answer, turned = None, run.turned
    try:
        answer = await asked.ask(is_stream=True)
        async for events in read_events(answer, turned):
            run.add(events)
    except TunesmithError as error:
        run.add(turned.fail(_code(error), str(error)))
    except Exception:  # the boundary of a task that nobody waits for: a bug is logged once, and the client told
        log.exception("a response in the background failed", response=turned.response["id"])
        run.add(turned.fail("server_error", "The server met an unexpected error."))
    finally:
        if answer is not None:
            answer.close()
    await asked.record.keep(asked.desk)


def _code(error: TunesmithError) -> str:
    """OpenAI's few codes for what can go wrong in a response."""
    if isinstance(error, Overloaded):
        return "rate_limit_exceeded"
    return "invalid_prompt" if error.status < 500 else "server_error"


async def resume(desk: Desk) -> None:
    """Does again what was open when the server ended; the events begin anew. What cannot be done any more is `failed`."""
    for row in await run_in_threadpool(_open_rows, desk):
        document = await run_in_threadpool(stored.document, desk.store, row)
        response = document["answer"] | {"status": "queued", "output": []}
        record = Record(row.project, document["key"], document["request"], document["items"], response)
        run = Run(Turned(response))
        run.add(run.turned.created())
        try:
            key = await run_in_threadpool(_working_key, desk, record.key_id, row.project)
            question, _ = await _question(desk, key, record.body)
            target = await target_of(desk, row.model, row.project)
        except TunesmithError as error:
            run.turned.fail(_code(error), f"The server was restarted, and it could not be done again: {error}")
            await record.keep(desk)
            continue
        desk.background.start(run, work(Asked(desk, key, target, question, record), run))


def _open_rows(desk: Desk) -> list[stored.Stored]:
    with desk.database.read() as connection:
        return stored.list_open_responses(connection)


def _working_key(desk: Desk, key_id: str, project: str) -> Key:
    """Raises NotFound, InvalidRequest for one that was revoked."""
    with desk.database.read() as connection:
        key = keys.get(connection, key_id, project)
    if not key.works_at(unix_now()):
        raise InvalidRequest(f"The key {key_id} does not work any more.")
    return key
