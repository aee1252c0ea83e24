"""Finds tool calls in a model's text as it comes, by transformers' ResponseParser and a response template. No torch, no HTTP.

What looks like a call but is not one stays text: the client sees what the model said.
"""

import json
import re
from typing import Any, NamedTuple

from transformers.utils.chat_parsing import ResponseParser

Json = dict[str, Any]
BROKEN = (ValueError, KeyError, TypeError, RecursionError)
"""What a response template raises for a region that is not what it should be."""
MARKED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?\[ARGS\]\s*")
"""What stands before a call's arguments in Mistral's newer form."""


class ToolCall(NamedTuple):
    name: str
    arguments: str
    """JSON of an object."""


class Parsed(NamedTuple):
    text: str
    calls: list[ToolCall]


class ToolText:
    """`feed` text, then `finish`: what they return, joined, is the content and the calls."""

    def __init__(self, response_template: Json):
        self._template = response_template
        self._parser = ResponseParser(response_template, prefix="")
        self._raw = ""
        """What was fed and not yet given out."""
        self._blank: str | None = None
        """White space after a call, which is content only if something follows; None before any call."""

    def feed(self, text: str) -> Parsed:
        # By letters, so that `_raw` is at each event what the event is about.
        return _joined([self._letter(letter) for letter in text])

    def finish(self) -> Parsed:
        """What was held back; a call that was not closed counts if it is whole."""
        try:
            _, events = self._parser.finalize()
            return self._take(events)
        except BROKEN:
            return Parsed(self._given(), [])

    def _letter(self, letter: str) -> Parsed:
        self._raw += letter
        try:
            return self._take(self._parser.feed(letter))
        except BROKEN:
            self._parser = ResponseParser(self._template, prefix="")
            return Parsed(self._given(), [])

    def _take(self, events: list[Json]) -> Parsed:
        said, calls = "", list[ToolCall]()
        for event in events:
            if event["field"] == "content":
                if event["type"] == "region_chunk":
                    self._raw = self._raw[len(event["text"]) :]
                    said += self._after_call(event["text"])
            elif event["type"] == "region_close":
                found = calls_of(event["value"]) if event["field"] == "tool_calls" else None
                if found:
                    calls += found
                    self._raw, self._blank = "", ""
                else:
                    said += self._given()
        return Parsed(said, calls)

    def _given(self) -> str:
        """All that is held back, as text."""
        raw, self._raw = self._raw, ""
        return self._after_call(raw)

    def _after_call(self, text: str) -> str:
        if self._blank is None:
            return text
        text = self._blank + text
        self._blank = None if text.strip() else text
        return text if self._blank is None else ""


def _joined(parts: list[Parsed]) -> Parsed:
    return Parsed("".join(part.text for part in parts), [call for part in parts for call in part.calls])


def calls_of(value: Any) -> list[ToolCall]:
    """The calls in a region's value: text as the model wrote it, or what a tokenizer's own template made. Empty if it holds
    anything that is not a call."""
    if isinstance(value, str):
        try:
            values = json_values(value) if value[:1] in ("{", "[") else marked_values(value)
        except (ValueError, RecursionError):
            return []
    else:
        values = value if isinstance(value, list) else [value]
    calls = [call_of(item) for item in values]
    return [call for call in calls if call is not None] if None not in calls else []


def json_values(text: str) -> list[Any]:
    """JSON values one after the other, with blanks, commas or semicolons between; lists are taken apart. Raises ValueError."""
    decoder, at, values = json.JSONDecoder(), 0, list[Any]()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        values += value if isinstance(value, list) else [value]
        while at < len(text) and text[at] in " \n\t\r;,":
            at += 1
    return values


def marked_values(text: str) -> list[Any]:
    """Mistral's calls since version 11: name[ARGS]{...}, with [TOOL_CALLS] between. Raises ValueError."""
    values = []
    for piece in text.split("[TOOL_CALLS]"):
        found = MARKED.match(piece)
        if not found:
            raise ValueError("no call")
        values.append({"name": found.group(1), "arguments": json.loads(piece[found.end() :])})
    return values


def call_of(value: Any) -> ToolCall | None:
    """The call in {"name", "arguments" or "parameters"}, also inside OpenAI's {"function": ...}; None if it is none."""
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments", function.get("parameters", {}))
    return ToolCall(function["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None
