"""What is not computed is refused by name; what asks for nothing is let through."""

from typing import Any

import pytest

from tunesmith.engine.requests import NEUTRAL, ChatRequest, CompletionRequest, parse
from tunesmith.errors import ContextTooLong, InvalidRequest

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(("field", "value", "code"), [
    ("frequency_penalty", 0.5, "unsupported_parameter"),
    ("logit_bias", {"1": 2}, "unsupported_parameter"),
    ("response_format", {"type": "json_object"}, "unsupported_parameter"),
    ("parallel_tool_calls", False, "unsupported_parameter"),
    ("store", True, "unsupported_parameter"),
    ("top_k", 5, "unknown_parameter"),
    ("temperature", 3, "invalid_value"),
    ("temperature", "hot", "invalid_value"),
    ("top_p", -0.1, "invalid_value"),
    ("max_tokens", 0, "invalid_value"),
    ("n", 0, "invalid_value"),
    ("stop", ["a"] * 5, "invalid_value"),
    ("stop", "", "invalid_value"),
    ("messages", [], "invalid_value"),
    ("tool_choice", "required", "invalid_value"),
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
