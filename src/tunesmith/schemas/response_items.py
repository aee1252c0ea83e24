"""What a response is made from: its input as items with ids, and the same as messages of a chat. Pure functions.

An item is a message, a call of a function, or the output of one; text is all that parts hold.
"""

import json
import secrets
from typing import Any

from tunesmith.errors import InvalidRequest
from tunesmith.types import Message

Json = dict[str, Any]

ROLES = ("user", "system", "developer", "assistant")
TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Type of a part -> its field that holds the text."""
PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def item_id(kind: str) -> str:
    return f"{PREFIXES[kind]}_{secrets.token_hex(16)}"


def to_items(value: Any) -> list[Json]:
    """The field `input`, a text or a list, as items in the shape in which they are shown. Raises InvalidRequest."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise _wrong("input is neither text nor a list of items", "input")
    return [_to_item(item, f"input[{number}]") for number, item in enumerate(value)]


def _to_item(item: Any, where: str) -> Json:
    if not isinstance(item, dict):
        raise _wrong(f"{where} is not an object", where)
    kind = item.get("type") or "message"
    if kind not in PREFIXES:
        message = f"{where} is of type {str(kind)[:60]!r}, and here are only {', '.join(PREFIXES)}."
        raise InvalidRequest(message, hint="Leave it out.", param=where, code="not_available")
    head = {"id": _text(item.get("id") or item_id(kind), f"{where}.id"), "type": kind, "status": "completed"}
    if kind == "message":
        return head | _message(item, where)
    call_id = _text(item.get("call_id"), f"{where}.call_id")
    if kind == "function_call":
        name, arguments = _text(item.get("name"), f"{where}.name"), _text(item.get("arguments"), f"{where}.arguments")
        _check_object(arguments, f"{where}.arguments")
        return head | {"call_id": call_id, "name": name, "arguments": arguments}
    output = item.get("output")
    return head | {"call_id": call_id, "output": output if isinstance(output, str) else _joined(output, f"{where}.output")}


def _message(item: Json, where: str) -> Json:
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise _wrong(f"{where}.role is none of {', '.join(ROLES)}", f"{where}.role")
    text = content if isinstance(content, str) else None
    parts = [{"type": "input_text", "text": text}] if text is not None else content
    _joined(parts, f"{where}.content")
    if role == "assistant":
        return {"role": role, "content": [_said(part) for part in parts or []]}
    return {"role": role, "content": [{"type": "input_text", "text": _text_of(part)} for part in parts or []]}


def _said(part: Json) -> Json:
    """A part of an earlier answer."""
    if part["type"] == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    return {"type": "output_text", "text": part["text"], "annotations": [], "logprobs": part.get("logprobs") or []}


def _joined(parts: Any, where: str) -> str:
    """The text of parts. Raises InvalidRequest for what is no text."""
    if not isinstance(parts, list):
        raise _wrong(f"{where} is neither text nor a list of parts", where)
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in TEXTS:
            message = f"{where} holds a part of type {str(kind)[:60]!r}; only text can be used."
            raise InvalidRequest(message, hint="Leave it out.", param=where, code="not_available")
        _text(part.get(TEXTS[kind]), where)
    return "".join(_text_of(part) for part in parts)


def _text_of(part: Json) -> str:
    return str(part[TEXTS[part["type"]]])


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(f"{where} is not text", where)
    return value


def _check_object(text: str, where: str) -> None:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{where} is not JSON", where) from error
    if not isinstance(value, dict):
        raise _wrong(f"{where} is not a JSON object", where)


def _wrong(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"{message}.", param=param, code="invalid_value")


def to_messages(items: list[Json]) -> list[Message]:
    """The conversation that items are; calls that follow one another, or an answer, are one assistant's message."""
    messages: list[Message] = []
    for item in items:
        if item["type"] == "message":
            messages.append({"role": item["role"], "content": "".join(_text_of(part) for part in item["content"])})
        elif item["type"] == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]})
        else:
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            call = {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}
            messages[-1].setdefault("tool_calls", []).append(call)
    return messages


def without_oldest(messages: list[Message]) -> list[Message] | None:
    """The conversation without its first message that is no instruction, and without what answered its calls; None when only one
    is left."""
    told = [message for message in messages if message["role"] in {"system", "developer"}]
    rest = [message for message in messages if message["role"] not in {"system", "developer"}][1:]
    while rest and rest[0]["role"] == "tool":
        rest = rest[1:]
    return told + rest if rest else None
