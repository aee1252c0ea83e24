"""Chat completions and completions on the wire: which of OpenAI's fields are honoured, and what a kept answer looks like.

Pure functions. Engines know chat with tools; OpenAI's older `functions` are turned into them and back here.
"""

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.errors import InvalidRequest
from tunesmith.schemas.fields import DESK, ENGINE, LABEL, Rule, Table, check, check_metadata, flag, missing, partly, refused

Json = dict[str, Any]

TIERS = ("auto", "default", "flex")
"""`flex` waits while anything else does."""

_SAMPLING: dict[str, Rule] = {
    "model": DESK,
    "frequency_penalty": ENGINE,
    "logit_bias": ENGINE,
    "logprobs": ENGINE,
    "max_tokens": ENGINE,
    "n": ENGINE,
    "presence_penalty": ENGINE,
    "seed": ENGINE,
    "stop": ENGINE,
    "stream": ENGINE,
    "stream_options": ENGINE,
    "temperature": ENGINE,
    "top_p": ENGINE,
    "user": LABEL,
}

CHAT: Table = _SAMPLING | {
    "messages": ENGINE,
    "audio": missing("answers are text"),
    "function_call": DESK,
    "functions": DESK,
    "max_completion_tokens": ENGINE,
    "metadata": DESK,
    "modalities": partly("answers are text", ["text"]),
    "moderation": missing("answers are not judged on their way; ask /v1/moderations"),
    "parallel_tool_calls": ENGINE,
    "prediction": refused("an answer is not computed faster by one that is foretold"),
    "prompt_cache_key": LABEL,
    "prompt_cache_options": LABEL,
    "prompt_cache_retention": LABEL,
    "reasoning_effort": partly("the models here have no grades of reasoning", "none"),
    "response_format": ENGINE,
    "safety_identifier": LABEL,
    "service_tier": partly("there are no other tiers", *TIERS),
    "store": DESK,
    "tool_choice": ENGINE,
    "tools": ENGINE,
    "top_logprobs": ENGINE,
    "verbosity": partly("the models here have no grades of verbosity", "medium"),
    "web_search_options": missing("nothing here searches the web"),
}

COMPLETIONS: Table = _SAMPLING | {
    "prompt": ENGINE,
    "best_of": partly("answers are not chosen among", 1),
    "echo": ENGINE,
    "suffix": partly("nothing is written into a gap", ""),
}

OWN = frozenset({
    "cache_salt", "deadline_seconds", "ignore_eos", "min_p", "min_tokens", "priority", "repetition_penalty", "return_token_ids",
    "structured_outputs", "top_k",
})
"""Fields of our own engine, of vLLM's names where it has them, that go beside OpenAI's."""

VLLM = (OWN - {"deadline_seconds", "priority"}) | {
    "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "bad_words", "chat_template_kwargs",
    "continue_final_message", "include_stop_str_in_output", "length_penalty", "prompt_logprobs", "return_tokens_as_token_ids",
    "skip_special_tokens", "spaces_between_special_tokens", "stop_token_ids", "truncate_prompt_tokens", "response_format",
}
"""Those of vLLM's; it says nothing about a field that it does not know, so we do."""

OTHERS: Mapping[str, frozenset[str] | None] = {"embedded": OWN | {"response_format"}, "vllm": VLLM, "openai": None}
"""Engine -> the fields that it knows beside OpenAI's; a server elsewhere speaks for itself."""

PARAMETERS = (
    "frequency_penalty", "max_completion_tokens", "max_tokens", "parallel_tool_calls", "presence_penalty", "response_format",
    "seed", "service_tier", "temperature", "tool_choice", "tools", "top_p",
)
"""What was asked and is shown with a kept answer."""

SHOWN = ("role", "name", "tool_calls", "tool_call_id", "function_call")
"""What is shown of a message that was asked, beside its content."""


def check_chat(body: Json, engine: str) -> None:
    """Raises InvalidRequest for what is not honoured; `engine` is the setting."""
    check(CHAT if engine != "openai" else {}, body, OTHERS[engine])
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        message = "max_tokens and max_completion_tokens cannot both be given."
        raise InvalidRequest(message, hint="Leave max_tokens out.", param="max_tokens", code="invalid_value")
    if check_metadata(body.get("metadata")) and not flag(body, "store"):
        message = "metadata is kept with stored completions only."
        raise InvalidRequest(message, hint="Set store to true, or leave metadata out.", param="metadata", code="invalid_value")


def check_completions(body: Json, engine: str) -> None:
    check(COMPLETIONS if engine != "openai" else {}, body, OTHERS[engine])


def to_engine(body: Json, table: Table, engine: str) -> Json:
    """The question without what concerns the desk only."""
    if engine == "openai":
        return {name: value for name, value in body.items() if name not in {"store", "metadata"}}
    kept = {name: value for name, value in body.items() if name not in table or table[name].how == "engine"}
    return with_tools(kept, body) | ({"priority": "batch"} if body.get("service_tier") == "flex" and engine == "embedded" else {})


def is_legacy(body: Json) -> bool:
    """Does it ask with `functions`, and want to be answered so?"""
    return bool(body.get("functions"))


def with_tools(kept: Json, body: Json) -> Json:
    """`kept` with the tools that `functions` and `function_call` of `body` are. Raises InvalidRequest for both at once."""
    functions, choice = body.get("functions"), body.get("function_call")
    if not functions:
        if choice not in (None, "none", "auto"):
            raise InvalidRequest("function_call needs functions.", param="function_call", code="invalid_value")
        return kept
    if body.get("tools"):
        raise InvalidRequest("functions and tools were both given.", hint="Use tools.", param="functions", code="invalid_value")
    if not isinstance(functions, list):
        raise InvalidRequest("functions is not a list.", param="functions", code="invalid_value")
    if isinstance(choice, dict):
        choice = {"type": "function", "function": choice}
    tools = [{"type": "function", "function": function} for function in functions]
    return kept | {"tools": tools, "tool_choice": choice or "auto", "parallel_tool_calls": False}


def to_legacy(answer: Json) -> Json:
    """A completion, or a chunk of one, with its call where clients that send `functions` look for it."""
    for choice in answer.get("choices", []):
        said = choice.get("message") or choice.get("delta") or {}
        for call in said.pop("tool_calls", []):
            said["function_call"] = {name: call["function"][name] for name in ("name", "arguments") if name in call["function"]}
        if choice.get("finish_reason") == "tool_calls":
            choice["finish_reason"] = "function_call"
    return answer


class Collected:
    """The chunks of a stream, put together to the completion that they are."""

    def __init__(self) -> None:
        self._head: Json = {}
        self._choices: dict[int, Json] = {}

    def add(self, chunk: Json) -> None:
        self._head |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        for part in chunk.get("choices", []):
            choice = self._choices.setdefault(part["index"], _new_choice(part["index"]))
            _add_delta(choice["message"], part.get("delta") or {})
            if part.get("finish_reason") is not None:
                choice["finish_reason"] = part["finish_reason"]
            if part.get("logprobs"):
                _add_logprobs(choice, part["logprobs"])
            if part.get("token_ids"):
                choice["token_ids"] = choice.get("token_ids", []) + part["token_ids"]

    @property
    def is_whole(self) -> bool:
        """Have all choices that began come to an end?"""
        return bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())

    def whole(self) -> Json:
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            message = choice["message"]
            if message["content"] == "" and (message.get("tool_calls") or message.get("function_call")):
                message["content"] = None
        return self._head | {"object": "chat.completion", "choices": choices}


def _new_choice(index: int) -> Json:
    message: Json = {"role": "assistant", "content": "", "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": None}


def _add_delta(message: Json, delta: Json) -> None:
    message["content"] += delta.get("content") or ""
    if delta.get("refusal"):
        message["refusal"] = (message["refusal"] or "") + delta["refusal"]
    for part in delta.get("tool_calls") or []:
        calls = message.setdefault("tool_calls", [])
        while len(calls) <= part.get("index", 0):
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[part.get("index", 0)]
        call["id"] = part.get("id") or call["id"]
        _add_function(call["function"], part.get("function") or {})
    if delta.get("function_call"):
        _add_function(message.setdefault("function_call", {"name": "", "arguments": ""}), delta["function_call"])


def _add_function(function: Json, part: Json) -> None:
    function["name"] += part.get("name") or ""
    function["arguments"] += part.get("arguments") or ""


def _add_logprobs(choice: Json, logprobs: Json) -> None:
    choice["logprobs"] = choice["logprobs"] or {"content": None, "refusal": None}
    for name in ("content", "refusal"):
        if logprobs.get(name):
            choice["logprobs"][name] = (choice["logprobs"][name] or []) + logprobs[name]


def kept_completion(document: Json, metadata: dict[str, str]) -> Json:
    """A stored completion as it is shown: the answer, and with what it was asked."""
    request, answer = document["request"], document["answer"]
    asked = {name: request.get(name) for name in PARAMETERS}
    shown = {"service_tier": asked["service_tier"] or "default", "input_user": request.get("user"), "metadata": metadata}
    whole: Json = answer | asked | shown
    return whole


def kept_messages(document: Json) -> list[Json]:
    """The messages of a stored completion's question, each with an id."""
    name = document["answer"]["id"]
    return [_kept_message(f"{name}-{number}", message) for number, message in enumerate(document["request"]["messages"])]


def _kept_message(message_id: str, message: Json) -> Json:
    """Content that came in parts stays in parts; of text, its text is shown too."""
    content, parts = message.get("content"), None
    if isinstance(content, list):
        parts = [part for part in content if part.get("type") in {"text", "image_url"}]
        content = "".join(part.get("text") or part.get("refusal") or "" for part in content)
    shown = {name: message[name] for name in SHOWN if name in message}
    return {"id": message_id, "content": content, "content_parts": parts, "refusal": message.get("refusal")} | shown


def loads(data: bytes | str) -> Json:
    """A JSON object that an engine or our own table wrote."""
    value = json.loads(data)
    assert isinstance(value, dict)
    return value


def dumps(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
