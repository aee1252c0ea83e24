"""The rows of an eval run, written into its folder when it is ordered: what the run is about is lost by no later deletion.

One line per row, {"item", "sample"}. A file's rows stay as they are, and are read by the worker; stored answers become rows whose
item has `input`, the conversation in chat's shape, and whose sample has `output_text`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.api.deps import Desk
from tunesmith.db import files, stored
from tunesmith.db.stored import Stored
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.evals.samples import with_json
from tunesmith.schemas import response_items
from tunesmith.schemas.eval_order import FileContent, FileId, Source, StoredCompletions, StoredResponses
from tunesmith.store import storage_error
from tunesmith.types import Message

PAGE = 200
Json = dict[str, Any]


def write(desk: Desk, project: str, source: Source, target: Path, metadata: dict[str, str] | None) -> None:
    """`metadata` is what the eval itself asks of stored answers. Raises InvalidRequest when there are no rows, StorageFull."""
    if isinstance(source, FileId):
        _fetch(desk, project, source.id, target)
    elif isinstance(source, FileContent):
        _write(target, (row.model_dump(exclude_unset=True) for row in source.content))
    elif not _write(target, stored_rows(desk, project, source, metadata)):
        hint = "They are stored with store=true, in this key's project; does the filter fit?"
        raise InvalidRequest("No stored answers fit this source.", hint=hint, param="data_source.source", code="no_rows")


def _fetch(desk: Desk, project: str, file_id: str, target: Path) -> None:
    param = "data_source.source.id"
    try:
        with desk.database.read() as connection:
            file = files.get(connection, file_id, project)
        desk.store.fetch(file.sha256, target)
    except NotFound as error:
        raise InvalidRequest(error.message, hint=error.hint, param=param, code="file_not_found") from error


def _write(target: Path, rows: Iterator[Json]) -> int:
    """How many. Raises StorageFull."""
    num_rows = 0
    try:
        with open(target, "w", encoding="ascii") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
                num_rows += 1
    except OSError as error:
        raise storage_error(error, target) from error
    return num_rows


# -- stored answers ---------------------------------------------------------------------------------------------------------


def stored_rows(
    desk: Desk, project: str, source: StoredCompletions | StoredResponses, metadata: dict[str, str] | None
) -> Iterator[Json]:
    """Newest first when there is a limit, so that it takes the newest; else oldest first."""
    left = source.limit
    for row in _found(desk, project, source, metadata):
        document = stored.document(desk.store, row)
        if isinstance(source, StoredResponses) and not _fits(source, document):
            continue
        yield from_completion(row, document) if row.kind == "completion" else from_response(row, document)
        left = None if left is None else left - 1
        if left == 0:
            return


def _found(
    desk: Desk, project: str, source: StoredCompletions | StoredResponses, metadata: dict[str, str] | None
) -> Iterator[Stored]:
    read = stored.list_responses if isinstance(source, StoredResponses) else stored.list_completions
    filters: Json = {
        "model": source.model,
        "metadata": (metadata or {}) | (source.metadata or {}),
        "created_after": source.created_after,
        "created_before": source.created_before,
        "order": "asc" if source.limit is None else "desc",
    }
    after, has_more = None, True
    while has_more:
        with desk.database.read() as connection:
            found, has_more = read(connection, project, after=after, limit=PAGE, **filters)
        yield from found
        after = found[-1].id if found else None


def _fits(source: StoredResponses, document: Json) -> bool:
    """What the table cannot filter."""
    asked = document["request"]
    if source.instructions_search is not None and source.instructions_search not in (asked.get("instructions") or ""):
        return False
    if source.users is not None and asked.get("user") not in source.users:
        return False
    if source.tools is not None and not {tool.get("name") for tool in asked.get("tools") or []} & set(source.tools):
        return False
    effort = (asked.get("reasoning") or {}).get("effort")
    sampling = (source.temperature, asked.get("temperature", 1)), (source.top_p, asked.get("top_p", 1))
    return all(wanted is None or wanted == found for wanted, found in (*sampling, (source.reasoning_effort, effort)))


def from_completion(row: Stored, document: Json) -> Json:
    choices = document["answer"]["choices"]
    message = choices[0]["message"]
    return _row(row, document["request"]["messages"], message.get("content"), message.get("tool_calls"), choices)


def from_response(row: Stored, document: Json) -> Json:
    instructions = document["request"].get("instructions")
    first = [{"role": "system", "content": instructions}] if instructions else []
    output = document["answer"]["output"]
    said = response_items.to_messages([item for item in output if item["type"] in ("message", "function_call")])
    text = "".join(message.get("content") or "" for message in said)
    calls = [call for message in said for call in message.get("tool_calls") or []]
    choices = [{"index": 0, "message": message, "finish_reason": "stop"} for message in said]
    return _row(row, [*first, *response_items.to_messages(document["items"])], text, calls, choices)


def _row(row: Stored, messages: list[Message], text: str | None, calls: list[Json] | None, choices: list[Json]) -> Json:
    sample: Json = {"model": row.model, "output_text": text or "", "output_tools": calls or [], "choices": choices}
    sample |= with_json(text or "")
    item = {"id": row.id, "created_at": row.created, "model": row.model, "metadata": row.metadata, "input": messages}
    return {"item": item | {"input_trajectory": messages, "output": text or ""}, "sample": sample}


