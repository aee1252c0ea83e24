"""Tool calls are found in text that comes in any pieces; what is not a call stays text."""

import pytest

from tunesmith.engine.tools import Parsed, ToolCall, ToolText

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>'
ADD = ToolCall("add", '{"a": 1, "b": "é"}')


def parse(text: str, size: int) -> Parsed:
    parser = ToolText()
    said, calls = "", []
    for at in range(0, len(text), size):
        part = parser.feed(text[at : at + size])
        said, calls = said + part.text, calls + part.calls
    rest = parser.finish()
    return Parsed(said + rest.text, calls + rest.calls)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(("text", "said", "calls"), [
    ("Hello there. \n", "Hello there. \n", []),
    (CALL, "", [ADD]),
    (f"I add.\n{CALL}\n{CALL}\n", "I add.", [ADD, ADD]),
    (CALL.removesuffix("</tool_call>"), "", [ADD]),
    ("a < b <tool> <tool_cal", "a < b <tool> <tool_cal", []),
    ("<tool_call>not json</tool_call> x", "<tool_call>not json</tool_call> x", []),
    ('<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
    ('<tool_call>{"name": "a", "arguments": [1]}</tool_call>', '<tool_call>{"name": "a", "arguments": [1]}</tool_call>', []),
    ("<tool_call>cut", "<tool_call>cut", []),
    ('<tool_call>{"name": "go"}</tool_call>', "", [ToolCall("go", "{}")]),
    ("", "", []),
])
def test_calls_are_found_however_the_text_is_cut(text: str, said: str, calls: list[ToolCall], size: int) -> None:
    assert parse(text, size) == Parsed(said, calls)
