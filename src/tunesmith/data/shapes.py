"""The ten shapes that rows come in: one function each, from an object of a file to the fields of a `formats.Row`.

`CONVERT` is the table, `SHAPES` how a shape is told by its fields. A row that cannot be used raises InvalidData with one
sentence. Knows no files and no line numbers.
"""

import json
from collections.abc import Callable
from typing import Any

from tunesmith.data.cells import json_cell
from tunesmith.data.images import check_count
from tunesmith.data.messages import check_answer, check_conversation, check_fields, to_call, to_message, to_messages, to_tools
from tunesmith.errors import InvalidData
from tunesmith.types import Message

Fields = dict[str, Any]

TURN_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bot": "assistant", "system": "system", "function_call": "assistant", "observation": "tool", "tool": "tool",
    "function_response": "tool",
}
"""ShareGPT's `from` -> role."""

LABELS = {"true": True, "1": True, "good": True, "false": False, "0": False, "bad": False}
"""A KTO label as text, in lower case -> its value."""


def _chat(row: Fields) -> Fields:
    given, messages = _openai_messages(row)
    check_conversation(messages)
    return {"messages": messages, "tools": _tools(row), "weights": _weights(given, messages)}


def _openai_messages(row: Fields) -> tuple[list[Any], list[Message]]:
    """Messages as a file of OpenAI's has them, with all fields that there are, and in normal form."""
    given = _list(row, "messages")
    messages = to_messages(given, images=True)
    check_fields(given)
    check_count(messages)
    if not isinstance(row.get("parallel_tool_calls"), bool | None):
        raise InvalidData("The field parallel_tool_calls is neither true nor false.")
    return given, messages


def _reinforcement(row: Fields) -> Fields:
    """A conversation that waits for an answer; a grader sees what else the row has as `item`."""
    _, messages = _openai_messages(row)
    if messages[-1]["role"] != "user":
        raise InvalidData(f"The last message has the role {messages[-1]['role']}; it must be the user's, to be answered.")
    item = {key: value for key, value in row.items() if key not in {"messages", "tools", "functions", "parallel_tool_calls"}}
    return {"messages": messages, "tools": _tools(row), "item": item}


def _weights(given: list[Any], messages: list[Message]) -> list[int] | None:
    """OpenAI's per-message weights: 0 leaves an assistant message untrained. None if no message has one."""
    for number, (item, message) in enumerate(zip(given, messages, strict=True), start=1):
        weight = item.get("weight")
        if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
            raise InvalidData(f"Message {number} has the weight {weight!r}; it may be 0 or 1.")
        if weight is not None and message["role"] != "assistant":
            raise InvalidData(
                f"Message {number} has a weight, but only assistant messages are trained.", code="message_unrecognized_key"
            )
    if all(item.get("weight") is None for item in given):
        return None
    weights = [
        0 if message["role"] != "assistant" else 1 if item.get("weight") is None else int(item["weight"])
        for item, message in zip(given, messages, strict=True)
    ]
    if not any(weights):
        raise InvalidData("Every assistant message has weight 0, so no token would be trained.")
    return weights


def _alpaca(row: Fields) -> Fields:
    instruction, extra = _text(row, "instruction"), row.get("input")
    if extra is not None and not isinstance(extra, str):
        raise InvalidData("The field input is not text.")
    messages = _system(row)
    for asked, answered in _history(row):
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    question = f"{instruction}\n{extra}" if extra and extra.strip() else instruction
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": _text(row, "output")}]
    return {"messages": messages, "tools": _tools(row)}


def _history(row: Fields) -> list[list[str]]:
    turns = json_cell(row.get("history")) or []
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise InvalidData("The field history is not a list of [question, answer] pairs.")
    if not all(isinstance(text, str) and text.strip() for turn in turns for text in turn):
        raise InvalidData("The field history has a question or answer without text.")
    return turns


def _sharegpt(row: Fields) -> Fields:
    messages = _system(row) + _turns(_list(row, "conversations"))
    check_conversation(messages)
    return {"messages": messages, "tools": _tools(row)}


def _turns(value: list[Any]) -> list[Message]:
    """Messages of `{"from", "value"}` turns; turns that have OpenAI's fields are taken as they are."""
    return [
        to_message(item, number) if isinstance(item, dict) and "role" in item else _turn(item, number)
        for number, item in enumerate(value, start=1)
    ]


def _turn(item: Any, number: int) -> Message:
    if not isinstance(item, dict) or not isinstance(item.get("value"), str):
        raise InvalidData(f"Message {number} is not an object with `from` and a text as `value`.")
    said = item.get("from")
    if not isinstance(said, str) or said not in TURN_ROLES:
        raise InvalidData(f"Message {number} is from {said!r}; it may be from {', '.join(TURN_ROLES)}.")
    if said != "function_call":
        return {"role": TURN_ROLES[said], "content": item["value"]}
    try:
        calls = json.loads(item["value"])
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"Message {number} is a function_call, but its value is not JSON.") from error
    calls = calls if isinstance(calls, list) else [calls]
    return {"role": "assistant", "content": "", "tool_calls": [to_call(call, number) for call in calls]}


def _prompt_completion(row: Fields) -> Fields:
    if isinstance(json_cell(row.get("prompt")), list):
        return _asked_and_answered(row)
    return {"prompt": _text(row, "prompt", empty=True), "completion": _text(row, "completion")}


def _asked_and_answered(row: Fields) -> Fields:
    """A conversation from `prompt` and `completion`, each messages or text, of which only the completion trains."""
    asked, answered = _prompt(row), _answer(row.get("completion"), "completion")
    check_conversation(asked + answered)
    return {"messages": asked + answered, "tools": _tools(row), "weights": [0] * len(asked) + _roles(answered)}


def _roles(messages: list[Message]) -> list[int]:
    return [int(message["role"] == "assistant") for message in messages]


def _question_answer(row: Fields) -> Fields:
    question = {"role": "user", "content": _text(row, "question")}
    return {"messages": [*_system(row), question, {"role": "assistant", "content": _text(row, "answer")}]}


def _preference(row: Fields) -> Fields:
    for good, bad in OPENAI_PAIRS:
        if good in row:
            asked = row.get("input") if isinstance(row.get("input"), dict) else {}
            _openai_messages(asked)
            row = {"prompt": asked["messages"], "tools": asked.get("tools"), "chosen": row[good], "rejected": row.get(bad)}
    chosen, rejected = _answer(row.get("chosen"), "chosen"), _answer(row.get("rejected"), "rejected")
    asked = _prompt(row, optional=True)
    if not asked:
        shared = _shared(chosen, rejected)
        asked, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    if not asked:
        raise InvalidData("There is no prompt: neither a field for it, nor messages that chosen and rejected begin with.")
    if chosen == rejected:
        raise InvalidData("The fields chosen and rejected are the same.")
    for answer in (chosen, rejected):
        check_conversation(asked + answer)
    return {"messages": asked, "chosen": chosen, "rejected": rejected, "tools": _tools(row)}


def _shared(chosen: list[Message], rejected: list[Message]) -> int:
    """How many messages both begin with."""
    pairs = zip(chosen, rejected, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))


def _kto(row: Fields) -> Fields:
    label = row.get("label")
    label = LABELS.get(label.strip().lower()) if isinstance(label, str) else label
    if isinstance(label, bool) or label in (0, 1):
        known = next(read for name, read in LABELLED.items() if name in row)(row)
        return {"messages": known["messages"], "tools": known["tools"], "label": bool(label)}
    raise InvalidData(f"The label is {row.get('label')!r}; it may be true or false.")


LABELLED = {"completion": _asked_and_answered, "conversations": _sharegpt, "output": _alpaca, "messages": _chat}
"""What an answer with a label looks like beside it: a field, and who reads the row."""


def _plain(row: Fields) -> Fields:
    return {"text": _text(row, "text")}


def _segments(row: Fields) -> Fields:
    """Axolotl's input_output: pieces of text that is rendered already, each with a label that says whether it trains."""
    pieces = json_cell(row.get("segments"))
    if not isinstance(pieces, list) or not pieces:
        raise InvalidData("The field segments is not a list of pieces.")
    for number, piece in enumerate(pieces, start=1):
        if not isinstance(piece, dict) or not isinstance(piece.get("text"), str) or not isinstance(piece.get("label"), bool):
            raise InvalidData(f"Segment {number} is not an object with a text and a label that is true or false.")
    return {"segments": [(piece["text"], piece["label"]) for piece in pieces]}


CONVERT: dict[str, Callable[[Fields], Fields]] = {
    "preference": _preference,
    "reinforcement": _reinforcement,
    "kto": _kto,
    "chat": _chat,
    "sharegpt": _sharegpt,
    "prompt_completion": _prompt_completion,
    "question_answer": _question_answer,
    "alpaca": _alpaca,
    "text": _plain,
    "segments": _segments,
}
"""Format -> how one object becomes the fields of a Row."""

OPENAI_PAIRS = (("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion"))
"""OpenAI's guide writes the first, its specification the second."""

SHAPES: list[tuple[str, frozenset[str]]] = [
    ("preference", frozenset({"chosen", "rejected"})),
    *(("preference", frozenset(pair)) for pair in OPENAI_PAIRS),
    ("kto", frozenset({"messages", "label"})),
    ("kto", frozenset({"conversations", "label"})),
    ("kto", frozenset({"prompt", "completion", "label"})),
    ("kto", frozenset({"instruction", "output", "label"})),
    ("chat", frozenset({"messages"})),
    ("sharegpt", frozenset({"conversations"})),
    ("prompt_completion", frozenset({"prompt", "completion"})),
    ("question_answer", frozenset({"question", "answer"})),
    ("alpaca", frozenset({"instruction", "output"})),
    ("segments", frozenset({"segments"})),
    ("text", frozenset({"text"})),
]
"""What tells a format: the first line of the table whose fields an object has. A `reinforcement` row looks like a chat that lacks
its end, so that format is named by whoever asks for it."""

OPTIONAL = frozenset({"input", "system", "history", "tools"})
"""Fields that a row may lack."""

FIELDS = frozenset().union(*(fields for _, fields in SHAPES)) | OPTIONAL
"""Our names of fields: what `--map` may name on its left side."""


def recognise(value: Fields) -> str | None:
    """The format of an object, by its fields; None if no format has them."""
    return next((name for name, fields in SHAPES if fields <= value.keys()), None)


# -- fields -----------------------------------------------------------------------------------------------------------


def _list(row: Fields, name: str) -> list[Any]:
    if name not in row:
        raise InvalidData(f"There is no field {name}.")
    value = json_cell(row[name])
    if not isinstance(value, list) or not value:
        raise InvalidData(f"The field {name} is not a list of messages.", code="missing_messages_list")
    return value


def _text(row: Fields, name: str, *, empty: bool = False) -> str:
    if row.get(name) is None:
        raise InvalidData(f"There is no field {name}.")
    if not isinstance(row[name], str):
        raise InvalidData(f"The field {name} is not text.")
    if not empty and not row[name].strip():
        raise InvalidData(f"The field {name} is empty.")
    return str(row[name])


def _system(row: Fields) -> list[Message]:
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        raise InvalidData("The field system is not text.")
    return [{"role": "system", "content": system}] if system and system.strip() else []


def _tools(row: Fields) -> list[dict[str, Any]]:
    return to_tools(row["tools"] if "tools" in row else row.get("functions"))


def _prompt(row: Fields, *, optional: bool = False) -> list[Message]:
    """The conversation before an answer: prompt, messages, conversations, question or instruction, whichever is there."""
    for name in ("prompt", "messages", "conversations"):
        value = json_cell(row.get(name))
        if isinstance(value, list) and value:
            return _system(row) + _turns(value)
    for name in ("prompt", "question", "instruction"):
        if row.get(name) is not None:
            extra = row.get("input") if name == "instruction" else None
            content = _text(row, name) + (f"\n{extra}" if isinstance(extra, str) and extra.strip() else "")
            return [*_system(row), {"role": "user", "content": content}]
    if optional:
        return []
    raise InvalidData("There is no field prompt.")


def _answer(value: Any, name: str) -> list[Message]:
    """An answer given as text, as one message or as messages."""
    if value is None:
        raise InvalidData(f"There is no field {name}.")
    value = json_cell(value)
    if isinstance(value, str):
        if not value.strip():
            raise InvalidData(f"The field {name} is empty.")
        return [{"role": "assistant", "content": value}]
    messages = _turns(value if isinstance(value, list) else [value])
    if not messages or messages[-1]["role"] != "assistant":
        raise InvalidData(f"The field {name} does not end with an assistant message.")
    check_answer(messages[-1], len(messages))
    return messages
