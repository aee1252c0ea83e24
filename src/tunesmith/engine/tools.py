"""Finds tool calls in a model's text, in Hermes' form: <tool_call>{"name": ..., "arguments": {...}}</tool_call>. No torch.

Works on text as it comes. What looks like a call but is not one stays text: the client sees what the model said.
"""

import json
from typing import NamedTuple

from tunesmith.engine.text import overlap

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class ToolCall(NamedTuple):
    name: str
    arguments: str
    """JSON of an object."""


class Parsed(NamedTuple):
    text: str
    calls: list[ToolCall]


class ToolText:
    """`feed` text, then `finish`: what they return, joined, is the content and the calls."""

    def __init__(self) -> None:
        self._held = ""
        self._is_inside = False
        self._has_called = False

    def feed(self, text: str) -> Parsed:
        self._held += text
        said, calls = "", []
        while True:
            if self._is_inside:
                body, found, rest = self._held.partition(CLOSE)
                if not found:
                    break
                self._held, self._is_inside = rest, False
                call = parse_call(body)
                if call is None:
                    said += OPEN + body + CLOSE
                else:
                    calls.append(call)
                    self._has_called = True
            else:
                before, found, rest = self._held.partition(OPEN)
                if not found:
                    break
                said += before.rstrip()
                self._held, self._is_inside = rest, True
        return Parsed(said + self._certain(), calls)

    def _certain(self) -> str:
        """Of the held text, what is before anything that may be a call, or the white space before one."""
        if self._is_inside:
            return ""
        keep = overlap(self._held, OPEN)
        sure = self._held[: len(self._held) - keep].rstrip()
        self._held = self._held[len(sure) :]
        return sure

    def finish(self) -> Parsed:
        """What was held back; a call that was not closed counts if it is whole."""
        held, self._held = self._held, ""
        if not self._is_inside:
            return Parsed("" if self._has_called and not held.strip() else held, [])
        call = parse_call(held)
        return Parsed(OPEN + held, []) if call is None else Parsed("", [call])


def parse_call(body: str) -> ToolCall | None:
    """The call in the text between the tags; None if it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    return ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None
