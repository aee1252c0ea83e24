"""Tool calls are found in text that comes in any pieces, as each family writes them; what is not a call stays text."""

from typing import Any

import pytest

from tunesmith.engine.tool_forms import HERMES, LLAMA, MISTRAL, ToolForm
from tunesmith.engine.tools import Parsed, ToolCall, ToolText

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>'
ADD = ToolCall("add", '{"a": 1, "b": "é"}')
GO = ToolCall("go", "{}")
BARE = '{"name": "add", "parameters": {"a": 1, "b": "é"}}'

OWN: dict[str, Any] = {
    "start_anchor": "assistant",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"<call:(?P<name>\w+)>", "close": "</call>", "content": "json", "repeats": True,
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"content": "text"},
    },
}
"""A response template as a tokenizer may bring one along."""


def parse(template: dict[str, Any], text: str, size: int) -> Parsed:
    parser = ToolText(template)
    said, calls = "", []
    for at in range(0, len(text), size):
        part = parser.feed(text[at : at + size])
        said, calls = said + part.text, calls + part.calls
    rest = parser.finish()
    return Parsed(said + rest.text, calls + rest.calls)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(("form", "text", "said", "calls"), [
    (HERMES, "Hello there. \n", "Hello there. \n", []),
    (HERMES, CALL, "", [ADD]),
    (HERMES, f"I add.\n{CALL}\n{CALL}\n", "I add.", [ADD, ADD]),
    (HERMES, f"{CALL}\nDone.", "\nDone.", [ADD]),
    (HERMES, CALL.removesuffix("</tool_call>"), "", [ADD]),
    (HERMES, "a < b <tool> <tool_cal", "a < b <tool> <tool_cal", []),
    (HERMES, "<tool_call>not json</tool_call> x", "<tool_call>not json</tool_call> x", []),
    (HERMES, f"<tool_call>[</tool_call> x\n{CALL}", "<tool_call>[</tool_call> x", [ADD]),
    (HERMES, '<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
    (HERMES, '<tool_call>{"name": "a", "arguments": 1}</tool_call>', '<tool_call>{"name": "a", "arguments": 1}</tool_call>', []),
    (HERMES, "<tool_call>cut", "<tool_call>cut", []),
    (HERMES, '<tool_call>{"name": "go"}</tool_call>', "", [GO]),
    (HERMES, "", "", []),
    (LLAMA, BARE, "", [ADD]),
    (LLAMA, f"<|python_tag|>{BARE}; {BARE}", "", [ADD, ADD]),
    (LLAMA, f"Wait: <|python_tag|>{BARE}", "Wait:", [ADD]),
    (LLAMA, '{"answer": 42}', '{"answer": 42}', []),
    (LLAMA, '<|python_tag|>brave.call("x")', '<|python_tag|>brave.call("x")', []),
    (LLAMA, 'In {"name": "go"} I trust.', 'In {"name": "go"} I trust.', []),
    (MISTRAL, '[TOOL_CALLS][{"name": "go", "arguments": {}}, {"name": "go", "arguments": {}, "id": "x"}]', "", [GO, GO]),
    (MISTRAL, '[TOOL_CALLS] [{"name": "go", "arguments": {}}]', "", [GO]),
    (MISTRAL, "So.[TOOL_CALLS]go[ARGS]{}[TOOL_CALLS]go[CALL_ID]ab1[ARGS]{}", "So.", [GO, GO]),
    (MISTRAL, "[TOOL_CALLS]go[ARGS]{", "[TOOL_CALLS]go[ARGS]{", []),
    (MISTRAL, "[TOOL_CAL", "[TOOL_CAL", []),
])
def test_calls_are_found_however_the_text_is_cut(form: ToolForm, text: str, said: str, calls: list[ToolCall], size: int) -> None:
    assert parse(form.response_template, text, size) == Parsed(said, calls)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("text", "said", "calls"), [
    ('<call:go>{}</call> <call:add>{"a": 1, "b": "é"}</call>', "", [GO, ADD]),
    ("<call:go>{</call> then <call:go>{}</call>", "<call:go>{</call> then ", [GO]),
    ("<think>hm</think>Yes.", "<think>hm</think>Yes.", []),
])
def test_a_tokenizers_own_response_template_is_followed(text: str, said: str, calls: list[ToolCall], size: int) -> None:
    assert parse(OWN, text, size) == Parsed(said, calls)


def test_a_call_comes_as_soon_as_it_is_whole() -> None:
    parser = ToolText(HERMES.response_template)
    assert parser.feed("So.\n" + CALL[:-1]) == Parsed("So.", [])
    assert parser.feed(">") == Parsed("", [ADD])
    assert parser.feed("\n") == Parsed("", [])
    assert parser.feed("x") == Parsed("\nx", [])
