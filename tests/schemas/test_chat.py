"""Each field of a chat is honoured or refused by name; streams are kept as the completions that they are."""

import pytest

from tunesmith.errors import InvalidRequest
from tunesmith.schemas.chat import CHAT, COMPLETIONS, Collected, check_chat, check_completions, to_engine, to_legacy
from tunesmith.schemas.fields import check_metadata

FUNCTION = {"name": "find", "parameters": {"type": "object"}}


def body(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"audio": {"voice": "a"}}, "audio", "not_available"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
        ({"verbosity": "low"}, "verbosity", "unsupported_parameter"),
        ({"service_tier": "scale"}, "service_tier", "unsupported_parameter"),
        ({"web_search_options": {}}, "web_search_options", "not_available"),
        ({"moderation": {"model": "x"}}, "moderation", "not_available"),
        ({"metadata": {"a": "b"}}, "metadata", "invalid_value"),
        ({"metadata": {"a": 1}, "store": True}, "metadata", "invalid_value"),
        ({"metadata": {"a": "b"}, "store": "yes"}, "store", "invalid_value"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens", "invalid_value"),
        ({"no_such_field": 1}, "no_such_field", "unknown_parameter"),
    ],
)
@pytest.mark.parametrize("engine", ["embedded", "vllm"])
def test_what_cannot_be_honoured_is_refused_by_name(fields, param, code, engine):
    with pytest.raises(InvalidRequest) as caught:
        check_chat(body(**fields), engine)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_what_asks_for_nothing_passes_and_what_is_the_desks_does_not_reach_the_engine():
    asked = body(
        modalities=["text"], verbosity="medium", reasoning_effort="none", service_tier="auto", audio=None, store=True, user="u",
        metadata={"a": "b"}, prompt_cache_key="k", safety_identifier="s", temperature=0, min_p=0.1,
    )
    check_chat(asked, "embedded")
    assert to_engine(asked, CHAT, "embedded") == {"messages": asked["messages"], "temperature": 0, "min_p": 0.1}
    assert to_engine(body(service_tier="flex"), CHAT, "embedded")["priority"] == "batch"


def test_a_server_elsewhere_speaks_for_itself():
    asked = body(reasoning_effort="high", anything=1, store=True)
    check_chat(asked, "openai")
    assert to_engine(asked, CHAT, "openai") == body(reasoning_effort="high", anything=1)


def test_a_field_that_vllm_would_ignore_is_refused():
    check_completions({"prompt": "x", "top_k": 3, "stop_token_ids": [1]}, "vllm")
    with pytest.raises(InvalidRequest) as caught:
        check_completions({"prompt": "x", "deadline_seconds": 3}, "vllm")
    assert caught.value.param == "deadline_seconds"
    assert to_engine({"prompt": "x", "best_of": 1, "suffix": ""}, COMPLETIONS, "vllm") == {"prompt": "x"}


def test_functions_are_tools_and_their_calls_come_back_as_functions():
    asked = to_engine(body(functions=[FUNCTION], function_call={"name": "find"}), CHAT, "embedded")
    assert asked["tools"] == [{"type": "function", "function": FUNCTION}]
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "find"}}
    call = {"id": "call-1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    answer = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    assert to_legacy(answer)["choices"][0] == {
        "message": {"content": None, "function_call": {"name": "find", "arguments": "{}"}}, "finish_reason": "function_call"
    }
    for wrong in ({"functions": [FUNCTION], "tools": [FUNCTION]}, {"function_call": {"name": "find"}}, {"functions": "x"}):
        with pytest.raises(InvalidRequest):
            to_engine(body(**wrong), CHAT, "embedded")


def chunk(index=0, finish_reason=None, **delta):
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [
        {"index": index, "delta": delta, "finish_reason": finish_reason}
    ]}  # fmt: skip


def test_chunks_make_the_completion_that_they_are():
    collected = Collected()
    part = {"index": 0, "id": "call-1", "function": {"name": "find", "arguments": '{"a"'}}
    for piece in (
        chunk(role="assistant", content=""), chunk(1, role="assistant"), chunk(content="Hel"), chunk(content="lo"),
        chunk(1, tool_calls=[part]), chunk(1, tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        chunk(finish_reason="stop"),
    ):  # fmt: skip
        collected.add(piece)
    assert not collected.is_whole
    collected.add(chunk(1, "tool_calls"))
    collected.add({"id": "c", "choices": [], "usage": {"total_tokens": 3}})
    assert collected.is_whole
    whole = collected.whole()
    assert (whole["object"], whole["usage"]) == ("chat.completion", {"total_tokens": 3})
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["Hello", None]
    assert whole["choices"][1]["message"]["tool_calls"][0] == {
        "id": "call-1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}
    }
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["stop", "tool_calls"]


MANY = {str(number): "" for number in range(17)}


@pytest.mark.parametrize("value", [[], "x", {"k" * 65: ""}, {"k": "v" * 513}, MANY, {"k": "\x00"}, {"k": "\ud800"}])
def test_labels_have_openais_limits(value):
    with pytest.raises(InvalidRequest):
        check_metadata(value)
    assert check_metadata({"k" * 64: "v" * 512}) == {"k" * 64: "v" * 512}
