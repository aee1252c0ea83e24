"""A response is a chat turned around: the same object whole or in pieces, its events in OpenAI's order, no null without need."""

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tunesmith.errors import InvalidRequest
from tunesmith.schemas.response_events import Turned
from tunesmith.schemas.response_items import to_items, to_messages, without_oldest
from tunesmith.schemas.responses import begin, check_responses, to_chat

TOOL = {"type": "function", "name": "find", "parameters": {"type": "object"}}
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 2}}
LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
EVENT = TypeAdapter(ResponseStreamEvent)
CALL = {"id": "call-1", "type": "function", "function": {"name": "find", "arguments": '{"n": 1}'}}


def chunk(finish_reason=None, logprobs=None, **delta):
    told = {"content": logprobs} if logprobs else None
    return {"choices": [{"delta": delta, "finish_reason": finish_reason, "logprobs": told}]}


def turned(*chunks, **body):
    made = Turned(begin({"model": "m", "input": "hi"} | body, "m", 7))
    events = made.created() + made.started()
    for piece in chunks:
        events += made.feed(piece)
    return made.response, events + made.end()


def types(events):
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_is_told_in_openais_order():
    response, events = turned(
        chunk(role="assistant", content=""), chunk(logprobs=[LOGPROB]), chunk(content="Hi"), chunk(content=" you"), chunk("stop"),
        {"choices": [], "usage": USAGE},
    )  # fmt: skip
    assert types(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENT.validate_python(event, strict=True)
    assert response == events[-1]["response"]
    Response.model_validate(response, strict=True)
    (part,) = response["output"][0]["content"]
    assert (part["text"], part["logprobs"], events[4]["logprobs"]) == ("Hi you", [LOGPROB], [LOGPROB])
    assert response["usage"]["input_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 0}
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])


def test_calls_follow_a_text_as_items_of_their_own():
    first, second = CALL | {"index": 0}, CALL | {"index": 1, "id": "call-2"}
    chunks = (chunk(content="Look:"), chunk(tool_calls=[first]), chunk("tool_calls", tool_calls=[second]))
    response, events = turned(*chunks, tools=[TOOL])
    assert [item["type"] for item in response["output"]] == ["message", "function_call", "function_call"]
    assert [item["status"] for item in response["output"]] == ["completed"] * 3
    assert types(events)[5:10] == [
        "output_text.done", "content_part.done", "output_item.done", "output_item.added", "function_call_arguments.delta"
    ]
    for event in events:
        EVENT.validate_python(event, strict=True)
    assert response["output"][2]["call_id"] == "call-2"


def test_arguments_that_come_in_pieces_are_joined():
    start = {"index": 0, "id": "call-1", "function": {"name": "find", "arguments": '{"n"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    response, events = turned(chunk(tool_calls=[start]), chunk(tool_calls=[rest]), chunk("tool_calls"), tools=[TOOL])
    assert response["output"][0]["arguments"] == '{"n": 1}'
    assert types(events).count("function_call_arguments.done") == 1


def test_a_whole_chat_makes_the_same_response_as_its_pieces():
    message = {"role": "assistant", "content": "Hi", "tool_calls": [CALL]}
    whole = {"choices": [{"message": message, "finish_reason": "tool_calls", "logprobs": {"content": [LOGPROB]}}], "usage": USAGE}
    one, _ = turned(whole, tools=[TOOL])
    pieces = (chunk(content="Hi", logprobs=[LOGPROB]), chunk("tool_calls", tool_calls=[CALL]), {"usage": USAGE})
    other, _ = turned(*pieces, tools=[TOOL])

    def plain(response):
        return [{name: value for name, value in item.items() if name != "id"} for item in response["output"]]

    assert plain(one) == plain(other)
    assert one["usage"] == other["usage"]


def test_an_answer_that_was_cut_is_incomplete_and_says_why():
    response, events = turned(chunk("length", content="Hi"))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (response["output"][0]["status"], events[-1]["type"]) == ("incomplete", "response.incomplete")


def test_an_answer_that_says_nothing_has_an_empty_message():
    response, _ = turned(chunk("stop"))
    assert response["output"][0]["content"][0]["text"] == ""


def test_what_goes_wrong_is_told_in_the_response():
    made = Turned(begin({"model": "m", "input": "hi", "background": True}, "m", 7))
    assert types(made.created()) == ["created", "queued"]
    made.feed(chunk(content="Hi"))
    events = made.fail("server_error", "It broke.")
    assert types(events)[-2:] == ["output_item.done", "failed"]
    Response.model_validate(made.response, strict=True)
    assert made.response["error"] == {"code": "server_error", "message": "It broke."}


def test_what_checkers_want_to_be_there_is_there():
    response, _ = turned(chunk("stop"))
    for name in (
        "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "top_p", "tool_choice", "truncation",
        "background", "service_tier", "tools", "parallel_tool_calls", "text", "store", "metadata",
    ):  # fmt: skip
        assert response[name] is not None, name


def test_a_conversation_goes_back_and_forth_between_items_and_messages():
    items = to_items([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look:", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "find", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
    ])
    assert all(item["id"] and item["status"] == "completed" for item in items)
    messages = to_messages(items)
    assert [message["role"] for message in messages] == ["developer", "user", "assistant", "tool", "tool"]
    assert (messages[1]["content"], messages[2]["content"], messages[4]["content"]) == ("ab", "Look:", "2")
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["c1", "c2"]
    assert to_messages(to_items("hi")) == [{"role": "user", "content": "hi"}]
    shorter = without_oldest(without_oldest(messages))
    assert shorter is None
    assert [message["role"] for message in without_oldest([*messages, {"role": "user", "content": "c"}])] == [
        "developer", "assistant", "tool", "tool", "user"
    ]


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "input"), (5, "input"), (["x"], "input[0]"), ([{"role": "nobody", "content": "x"}], "input[0].role"),
        ([{"role": "user"}], "input[0].content"), ([{"type": "reasoning"}], "input[0]"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content"),
        ([{"type": "function_call", "call_id": "c", "name": "f", "arguments": "["}], "input[0].arguments"),
        ([{"type": "function_call_output", "output": "x"}], "input[0].call_id"),
    ],
)  # fmt: skip
def test_input_that_is_no_text_is_refused_where_it_stands(value, param):
    with pytest.raises(InvalidRequest) as caught:
        to_items(value)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools", "not_available"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools", "not_available"),
        ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "tool_choice", "not_available"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"conversation": "conv_1"}, "conversation", "not_available"),
        ({"prompt": {"id": "p"}}, "prompt", "not_available"),
        ({"include": ["file_search_call.results"]}, "include", "not_available"),
        ({"reasoning": {"effort": "high"}}, "reasoning", "unsupported_parameter"),
        ({"max_output_tokens": 15}, "max_output_tokens", "invalid_value"),
        ({"background": True, "store": False}, "store", "invalid_value"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter"),
        ({"text": {"style": "low"}}, "text.style", "unknown_parameter"),
        ({"truncation": "middle"}, "truncation", "unsupported_parameter"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"instructions": 5}, "instructions", "invalid_value"),
        ({"user": 5}, "user", "invalid_value"),
        ({"max_tool_calls": "x"}, "max_tool_calls", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [TOOL | {"description": 5}]}, "tools[0].description", "invalid_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(fields, param, code):
    def ask():
        body = {"model": "m", "input": "hi"} | fields
        check_responses(body, "embedded")
        to_chat(body, [])

    with pytest.raises(InvalidRequest) as caught:
        ask()
    assert (caught.value.param, caught.value.code) == (param, code)


def test_the_question_is_a_chat():
    body = {
        "model": "m", "input": "hi", "instructions": "Be brief.", "max_output_tokens": 20, "temperature": 0, "top_logprobs": 2,
        "include": ["message.output_text.logprobs"], "metadata": {"a": "b"}, "tools": [TOOL, TOOL | {"name": "other"}],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "find"}]},
        "text": {"format": {"type": "json_schema", "name": "s", "schema": {}, "strict": True}}, "parallel_tool_calls": False,
    }
    check_responses(body, "embedded")
    assert to_chat(body, [{"role": "user", "content": "hi"}]) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_completion_tokens": 20, "temperature": 0, "logprobs": True, "top_logprobs": 2, "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}],
        "tool_choice": "required",
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}, "strict": True}},
    }
