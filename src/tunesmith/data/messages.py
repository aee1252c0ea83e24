"""The one normal form of messages and tools: what data files and API clients send, as chat templates expect it.

Content is a string, roles are system, user, assistant and tool, a tool call's arguments are an object (templates write them
as JSON; a string would be quoted twice), and a tool is OpenAI's `{"type": "function", "function": {...}}`. Knows no files,
no tokenizers, no torch. Everything raises InvalidData with one sentence that names the message by its number, from 1; its code
is the name that OpenAI's cookbook gives the check, where it has one.
"""

import json
from typing import Any

from tunesmith.data.cells import json_cell
from tunesmith.data.images import has_image, to_parts
from tunesmith.errors import InvalidData
from tunesmith.types import Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool", "function": "tool"}
"""Role as sent -> role in a template."""

KEPT = ("name", "tool_call_id", "reasoning_content")
"""Fields of a message that are handed on to the template as they are."""


FIELDS = frozenset(
    {"role", "content", "weight", "tool_calls", "function_call", "refusal", *KEPT}
)
"""What a message of a training file may have."""


def to_messages(value: Any, what: str = "messages", *, images: bool = False) -> list[Message]:
    """A conversation in normal form; `what` is the field's name. Raises InvalidData if it is not one.

    With `images` the user's parts stay parts where one of them is an image.
    """
    if not isinstance(value, list) or not value:
        raise InvalidData(f"The field {what} is not a list of messages.", code="missing_messages_list")
    return [to_message(item, number, images=images) for number, item in enumerate(value, start=1)]


def check_fields(value: list[Any]) -> None:
    """Raises InvalidData for a message with a field that says something and that we do not know: it would be lost silently."""
    for number, item in enumerate(value, start=1):
        unknown = sorted(key for key, said in item.items() if key not in FIELDS and said is not None and said != [])
        if unknown:
            raise InvalidData(f'Message {number} contains an extra "{unknown[0]}".', code="message_unrecognized_key")


def to_message(value: Any, number: int, *, images: bool = False) -> Message:
    if not isinstance(value, dict):
        raise InvalidData(f"Message {number} is not an object.", code="data_type")
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        said, code = ("no role", "message_missing_key") if role is None else (f"the role {role!r}", "unrecognized_role")
        raise InvalidData(f"Message {number} has {said}; roles are {', '.join(ROLES)}.", code=code)
    given, kept = value.get("content"), {key: value[key] for key in KEPT if value.get(key) is not None}
    if images and role == "user" and has_image(given):
        return {"role": "user", "content": to_parts(given, number)} | kept
    message: Message = {"role": ROLES[role], "content": to_text(value.get("refusal") if given is None else given, number)}
    calls = to_calls(value, number)
    if calls:
        if message["role"] != "assistant":
            raise InvalidData(f"Message {number} calls a tool, but its role is {role}.")
        message["tool_calls"] = calls
    elif value.get("content") is None and message["role"] != "assistant":
        code = "missing_content" if "content" in value else "message_missing_key"
        raise InvalidData(f"Message {number} ({role}) has no content.", code=code)
    return message | kept


def to_text(content: Any, number: int) -> str:
    """The text of a message's content: a string, None (empty), or a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidData(f"Message {number} has a content that is neither text nor a list of parts.", code="missing_content")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in {"text", "refusal"} or not isinstance(part.get(kind), str):
            raise InvalidData(f"Message {number} has a content part of type {kind!r}; only text can be used.")
        texts.append(part[kind])
    return "".join(texts)


def to_calls(message: Message, number: int) -> list[dict[str, Any]]:
    """The tool calls of a message, from `tool_calls` or the older `function_call`."""
    calls = json_cell(message.get("tool_calls")) or []
    if not isinstance(calls, list):
        raise InvalidData(f"Message {number} has tool_calls that are not a list.")
    if message.get("function_call"):
        calls = [*calls, message["function_call"]]
    return [to_call(call, number) for call in calls]


def to_call(call: Any, number: int) -> dict[str, Any]:
    call = json_cell(call)
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidData(f"Message {number} has a tool call without a function name.")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        raise InvalidData(f"Message {number} calls {function['name']} with arguments that are not a JSON object.")
    normal = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return normal | ({"id": call["id"]} if call.get("id") else {})


def to_tools(value: Any) -> list[dict[str, Any]]:
    """Tools in OpenAI's shape, from a list or its JSON, of such objects or of bare functions; None and "" are no tools."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError) as error:
            raise InvalidData("The field tools is not JSON.") from error
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidData("The field tools is not a list.")
    return [_tool(tool, number) for number, tool in enumerate(value, start=1)]


def _tool(tool: Any, number: int) -> dict[str, Any]:
    tool = json_cell(tool)
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidData(f"Tool {number} is not a function with a name.")
    return {"type": "function", "function": function}


def check_conversation(messages: list[Message]) -> None:
    """Raises InvalidData unless tool results follow calls and the last message is an assistant's answer that says something."""
    if not any(message["role"] == "assistant" for message in messages):
        raise InvalidData(
            "There is no assistant message, so there is nothing to learn.", code="example_missing_assistant_message"
        )
    previous: Message = {"role": ""}
    for number, message in enumerate(messages, start=1):
        if message["role"] == "tool" and previous["role"] != "tool" and not previous.get("tool_calls"):
            raise InvalidData(f"Message {number} is a tool's result, but no tool call stands before it.")
        if message["role"] == "assistant":
            check_answer(message, number)
        previous = message
    if previous["role"] != "assistant":
        raise InvalidData(f"The last message has the role {previous['role']}; it must be the assistant's answer.")


def check_answer(message: Message, number: int) -> None:
    if not message["content"].strip() and not message.get("tool_calls"):
        raise InvalidData(f"Message {number}, the assistant's, is empty.", code="missing_content")
