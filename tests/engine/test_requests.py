"""What is not computed is refused by name; what asks for nothing is let through."""

from typing import Any

import pytest

from tunesmith.engine.parsing import NEUTRAL, parse
from tunesmith.engine.requests import ChatRequest, CompletionRequest, TokenizeRequest
from tunesmith.errors import ContextTooLong, InvalidRequest

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(("field", "value", "code"), [
    ("store", True, "unsupported_parameter"),
    ("dimensions", 5, "unsupported_parameter"),
    ("beam_width", 5, "unknown_parameter"),
    ("frequency_penalty", 2.1, "invalid_value"),
    ("presence_penalty", -2.1, "invalid_value"),
    ("repetition_penalty", 0, "invalid_value"),
    ("top_k", -2, "invalid_value"),
    ("min_p", 1.1, "invalid_value"),
    ("logit_bias", {"1": 101}, "invalid_value"),
    ("logit_bias", {"one": 1}, "invalid_value"),
    ("logit_bias", {"-1": 1}, "invalid_value"),
    ("seed", 2**63, "invalid_value"),
    ("priority", "urgent", "invalid_value"),
    ("deadline_seconds", 0, "invalid_value"),
    ("deadline_seconds", float("inf"), "invalid_value"),
    ("cache_salt", "", "invalid_value"),
    ("response_format", {"type": "xml"}, "invalid_value"),
    ("response_format", {"type": "json_schema"}, "invalid_value"),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, "invalid_value"),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "lenient": True}}, "unknown_parameter"),
    ("structured_outputs", {}, "invalid_value"),
    ("structured_outputs", {"regex": "a", "choice": ["b"]}, "invalid_value"),
    ("structured_outputs", {"choice": [""]}, "invalid_value"),
    ("structured_outputs", {"structural_tag": "x"}, "unknown_parameter"),
    ("tools", [{"type": "function"}], "invalid_value"),
    ("tool_choice", "required", "invalid_value"),
    ("tool_choice", {"type": "function", "function": {"name": "add"}}, "invalid_value"),
    ("temperature", float("nan"), "invalid_value"),
    ("temperature", 3, "invalid_value"),
    ("temperature", "hot", "invalid_value"),
    ("top_p", -0.1, "invalid_value"),
    ("max_tokens", 0, "invalid_value"),
    ("n", 0, "invalid_value"),
    ("stop", ["a"] * 5, "invalid_value"),
    ("stop", "", "invalid_value"),
    ("messages", [], "invalid_value"),
    ("top_logprobs", 2, "invalid_request"),
    ("stream_options", {"nonsense": 1}, "unknown_parameter"),
])
def test_what_is_not_offered_is_refused_with_its_name(field: str, value: Any, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ChatRequest, CHAT | {field: value})
    assert caught.value.param is not None
    assert caught.value.param.startswith(field)
    assert caught.value.code == code
    assert caught.value.status == 400


def test_values_that_ask_for_nothing_and_labels_are_let_through() -> None:
    neutral = {name: values[0] for name, values in NEUTRAL.items() if values}
    labels = {"user": "me", "metadata": {"a": "b"}, "safety_identifier": "x", "prompt_cache_key": "y"}
    nulls = {"temperature": None, "seed": None, "tools": None, "max_tokens": None, "audio": None}
    assert parse(ChatRequest, CHAT | neutral | labels | nulls) == parse(ChatRequest, CHAT)


@pytest.mark.parametrize("body", [None, [], "text", 5])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequest):
        parse(ChatRequest, body)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ChatRequest, {"model": "m"})
    assert (caught.value.param, caught.value.code) == ("messages", "missing_required_parameter")


def test_what_does_not_fit_into_the_positions_is_refused_and_without_a_limit_the_rest_is_the_limit() -> None:
    request = parse(ChatRequest, CHAT | {"max_completion_tokens": 50, "max_tokens": 5})
    assert request.sampling(50, 100, 0).max_tokens == 50
    with pytest.raises(ContextTooLong) as caught:
        request.sampling(51, 100, 0)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert parse(ChatRequest, CHAT).sampling(60, 100, 0).max_tokens == 40
    with pytest.raises(ContextTooLong):
        parse(ChatRequest, CHAT).sampling(100, 100, 0)


def test_every_way_to_sample_reaches_the_sampler() -> None:
    asked = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "presence_penalty": 0.1, "frequency_penalty": -0.2,
        "repetition_penalty": 1.2, "min_tokens": 3, "seed": 4,
    }
    sampling = parse(ChatRequest, CHAT | asked | {"logit_bias": {"7": -100, "8": 1.5}, "stop": "x"}).sampling(1, 100, 0)
    assert {name: getattr(sampling, name) for name in asked} == asked
    assert (sampling.logit_bias, sampling.stop) == (((7, -100.0), (8, 1.5)), ("x",))
    assert parse(ChatRequest, CHAT | {"top_k": -1}).sampling(1, 100, 0).top_k == 0, "vLLM's way to say none"


@pytest.mark.parametrize(("asked", "param", "part"), [
    ({"response_format": {"type": "json_object"}}, "response_format", '"object"'),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": 17}, "strict": True}}},
     "response_format", "17"),
    ({"structured_outputs": {"json": {"const": 17}}}, "structured_outputs", "17"),
    ({"structured_outputs": {"json": '{"const": 17}'}}, "structured_outputs", "17"),
    ({"structured_outputs": {"regex": "x17"}}, "structured_outputs", "x17"),
    ({"structured_outputs": {"grammar": 'start: "x17"'}}, "structured_outputs", "x17"),
    ({"structured_outputs": {"choice": ["x17", "y"]}}, "structured_outputs", "x17"),
])
def test_a_form_becomes_a_grammar_and_the_field_that_asks_for_it(asked: dict[str, Any], param: str, part: str) -> None:
    form = parse(ChatRequest, CHAT | asked).form
    assert form is not None
    assert form[1] == param
    assert part in form[0]
    assert parse(CompletionRequest, {"model": "m", "prompt": "a"} | asked).form == form


@pytest.mark.parametrize("schema", ["no json", "[1", '"' * 3])
def test_a_schema_that_is_no_json_is_refused(schema: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        print(parse(ChatRequest, CHAT | {"structured_outputs": {"json": schema}}).form)
    assert caught.value.param == "structured_outputs"


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("add", "go")]


@pytest.mark.parametrize(("choice", "used", "forced"), [
    ("none", [], []), ("auto", ["add", "go"], []), ("required", ["add", "go"], ["add", "go"]),
    ({"type": "function", "function": {"name": "go"}}, ["add", "go"], ["go"]),
])
def test_a_tool_choice_tells_which_tools_are_shown_and_which_called(choice: Any, used: list[str], forced: list[str]) -> None:
    request = parse(ChatRequest, CHAT | {"tools": TOOLS, "tool_choice": choice})
    assert [tool["function"]["name"] for tool in request.used_tools] == used
    assert [tool["function"]["name"] for tool in request.forced_tools] == forced


@pytest.mark.parametrize(("body", "param"), [
    (CHAT | {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
    (CHAT | {"structured_outputs": {"regex": "a"}, "tools": TOOLS}, "structured_outputs"),
])
def test_fields_that_exclude_each_other_are_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ChatRequest, body)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


def test_tokenize_takes_a_text_or_a_conversation() -> None:
    assert parse(TokenizeRequest, {"prompt": "a"}).add_special_tokens
    for body in ({}, {"prompt": "a", "messages": CHAT["messages"]}):
        with pytest.raises(InvalidRequest) as caught:
            parse(TokenizeRequest, body)
        assert caught.value.param == "prompt"


def test_each_choice_has_a_seed_of_its_own() -> None:
    request = parse(ChatRequest, CHAT | {"seed": 7, "n": 2})
    assert [request.sampling(1, 100, n).seed for n in range(2)] == [7, 8]
    assert parse(ChatRequest, CHAT).sampling(1, 100, 0).seed is None


@pytest.mark.parametrize(("prompt", "prompts"), [
    ("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]),
])
def test_prompts_come_as_text_or_tokens_one_or_many(prompt: Any, prompts: list[Any]) -> None:
    assert parse(CompletionRequest, {"model": "m", "prompt": prompt}).prompts == prompts


def test_prompt_logprobs_come_with_echo_and_logprobs_only() -> None:
    body = {"model": "m", "prompt": "a", "max_tokens": 0}
    assert parse(CompletionRequest, body | {"echo": True, "logprobs": 0}).sampling(1, 9, 0).prompt_logprobs
    assert not parse(CompletionRequest, body | {"echo": True}).sampling(1, 9, 0).prompt_logprobs
    assert not parse(CompletionRequest, body | {"logprobs": 0}).sampling(1, 9, 0).prompt_logprobs
