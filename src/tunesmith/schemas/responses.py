"""Responses on the wire: which of OpenAI's fields are honoured, the question to an engine, and the object that answers.

Pure functions. Engines know chat only; a response is a chat turned around.
"""

import secrets
from typing import Any

from tunesmith.errors import InvalidRequest
from tunesmith.schemas.chat import OTHERS, OWN, TIERS
from tunesmith.schemas.fields import DESK, ENGINE, LABEL, Table, check, check_metadata, flag, missing, partly
from tunesmith.types import Message

Json = dict[str, Any]

MIN_OUTPUT_TOKENS = 16
LOGPROBS = "message.output_text.logprobs"
INCLUDED = (LOGPROBS, "reasoning.encrypted_content")
"""What may be asked to be included; of reasoning there is nothing."""

RESPONSES: Table = {
    "background": DESK,
    "context_management": missing("conversations are not made shorter here"),
    "conversation": missing("there are no conversations; use previous_response_id"),
    "frequency_penalty": ENGINE,
    "include": DESK,
    "input": DESK,
    "instructions": DESK,
    "max_output_tokens": DESK,
    "max_tool_calls": LABEL,
    "metadata": DESK,
    "model": DESK,
    "moderation": missing("answers are not judged on their way; ask /v1/moderations"),
    "parallel_tool_calls": ENGINE,
    "presence_penalty": ENGINE,
    "previous_response_id": DESK,
    "prompt": missing("there are no stored prompts; send instructions and input"),
    "prompt_cache_key": LABEL,
    "prompt_cache_options": LABEL,
    "prompt_cache_retention": LABEL,
    "reasoning": partly(
        "the models here have no grades of reasoning", {}, {"effort": None}, {"effort": "none"}, {"effort": None, "summary": None}
    ),
    "safety_identifier": LABEL,
    "service_tier": partly("there are no other tiers", *TIERS),
    "store": DESK,
    "stream": DESK,
    "stream_options": DESK,
    "temperature": ENGINE,
    "text": DESK,
    "tool_choice": DESK,
    "tools": DESK,
    "top_logprobs": DESK,
    "top_p": ENGINE,
    "truncation": partly("a conversation is cut at its beginning or not at all", "auto", "disabled"),
    "user": LABEL,
}

COUNTED = frozenset({
    "input", "instructions", "model", "parallel_tool_calls", "previous_response_id", "reasoning", "text", "tool_choice", "tools",
    "truncation",
})  # fmt: skip
"""Fields of a question that may be sent for its tokens to be counted."""

FUNCTION: dict[str, Any] = {"name": str, "description": str | None, "parameters": dict | None, "strict": bool | None}
"""Fields of a function -> what they may be."""

PARAMS = {"messages": "input", "max_completion_tokens": "max_output_tokens", "response_format": "text.format"}
"""What an engine calls a field -> what the client did."""


def check_responses(body: Json, engine: str) -> None:
    """Raises InvalidRequest for what is not honoured."""
    check(RESPONSES, body, OTHERS[engine] or OWN)
    check_metadata(body.get("metadata"))
    for name in ("background", "store", "stream"):
        flag(body, name)
    if body.get("background") and body.get("store") is False:
        message = "A response in the background is stored: it could not be found else."
        raise InvalidRequest(message, hint="Leave store out.", param="store", code="invalid_value")
    for name in ("instructions", "previous_response_id"):
        if not isinstance(body.get(name), str | None):
            raise InvalidRequest(f"{name} is not text.", param=name, code="invalid_value")
    longest = body.get("max_output_tokens")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < MIN_OUTPUT_TOKENS):
        message = f"max_output_tokens is not a number from {MIN_OUTPUT_TOKENS}."
        raise InvalidRequest(message, param="max_output_tokens", code="invalid_value")
    calls = body.get("max_tool_calls")
    if calls is not None and (not isinstance(calls, int) or isinstance(calls, bool) or calls < 1):
        raise InvalidRequest("max_tool_calls is not a number from 1.", param="max_tool_calls", code="invalid_value")
    check_include(body.get("include"))


def check_include(value: Any) -> list[str]:
    """Raises InvalidRequest for what cannot be included."""
    asked = [] if value is None else value
    wrong = None if isinstance(asked, list) else asked
    for name in asked if wrong is None else ():
        wrong = name if name not in INCLUDED else wrong
    if wrong is not None:
        message = f"{str(wrong)[:80]!r} cannot be included here."
        raise InvalidRequest(message, hint=f"There are: {', '.join(INCLUDED)}.", param="include", code="not_available")
    return list(asked)


def to_chat(body: Json, messages: list[Message]) -> Json:
    """The question to an engine, of a checked body and the whole conversation. Raises InvalidRequest."""
    kept = {name: value for name, value in body.items() if name in OWN or (rule := RESPONSES.get(name)) and rule.how == "engine"}
    if body.get("instructions"):
        messages = [{"role": "system", "content": body["instructions"]}, *messages]
    question = kept | _tools(body) | {"messages": messages, "response_format": _response_format(body.get("text"))}
    if body.get("max_output_tokens") is not None:
        question["max_completion_tokens"] = body["max_output_tokens"]
    top = body.get("top_logprobs")
    if top or LOGPROBS in (body.get("include") or []):
        question |= {"logprobs": True, "top_logprobs": top or 0}
    return question | ({"priority": "batch"} if body.get("service_tier") == "flex" else {})


def _response_format(text: Any) -> Json:
    """Of the field `text`. Raises InvalidRequest."""
    if not isinstance(text, dict | None):
        raise InvalidRequest("text is not an object.", param="text", code="invalid_value")
    unknown = sorted(set(text or {}) - {"format", "verbosity"})
    if unknown:
        raise InvalidRequest(f"text.{unknown[0]} is unknown.", param=f"text.{unknown[0]}", code="unknown_parameter")
    if (text or {}).get("verbosity") not in (None, "medium"):
        message = "text.verbosity is not supported here: the models here have no grades of verbosity."
        raise InvalidRequest(message, hint="Leave it out.", param="text.verbosity", code="unsupported_parameter")
    asked = (text or {}).get("format") or {"type": "text"}
    if not isinstance(asked, dict):
        raise InvalidRequest("text.format is not an object.", param="text.format", code="invalid_value")
    if asked.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {name: value for name, value in asked.items() if name != "type"}}
    return asked


def _tools(body: Json) -> Json:
    """`tools` and `tool_choice` of a chat. Raises InvalidRequest for tools that are not the client's own functions."""
    tools = to_tools(body.get("tools"))
    choice = body.get("tool_choice")
    if not tools:
        if choice in (None, "none", "auto"):
            return {}
        raise InvalidRequest("tool_choice needs tools.", param="tool_choice", code="invalid_value")
    if isinstance(choice, dict) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = {tool.get("name") for tool in choice.get("tools") or [] if isinstance(tool, dict)}
        tools, choice = [tool for tool in tools if tool["name"] in allowed], choice.get("mode")
    elif choice not in (None, "none", "auto", "required"):
        message = "tool_choice names a tool that is not a function of yours."
        raise InvalidRequest(message, hint="Name a function of `tools`.", param="tool_choice", code="not_available")
    functions = [{name: tool[name] for name in ("name", "description", "parameters") if tool[name] is not None} for tool in tools]
    return {"tools": [{"type": "function", "function": function} for function in functions], "tool_choice": choice or "auto"}


def to_tools(value: Any) -> list[Json]:
    """The client's functions, as they are shown. Raises InvalidRequest for any other tool."""
    if not isinstance(value, list | None):
        raise InvalidRequest("tools is not a list.", param="tools", code="invalid_value")
    for number, tool in enumerate(value or []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            message = f"tools[{number}] is a {str(kind)[:60]!r}; nothing here runs tools."
            raise InvalidRequest(message, hint="Send functions, and run them yourself.", param="tools", code="not_available")
        for name, kinds in FUNCTION.items():
            if not isinstance(tool.get(name), kinds):
                code = "missing_required_parameter" if name not in tool else "invalid_value"
                raise InvalidRequest(f"tools[{number}].{name} is missing or wrong.", param=f"tools[{number}].{name}", code=code)
    return [
        {"type": "function", "name": tool["name"], "description": tool.get("description"), "parameters": tool.get("parameters"),
         "strict": tool.get("strict", True)}
        for tool in value or []
    ]  # fmt: skip


def begin(body: Json, model: str, created: int) -> Json:
    """The response before anything is computed. What a client left out has its value; `usage` comes with the answer."""

    def given(name: str, default: Any) -> Any:
        return default if body.get(name) is None else body[name]

    labels = {name: body[name] for name in ("user", "safety_identifier", "prompt_cache_key", "max_tool_calls") if body.get(name)}
    tier = given("service_tier", "default")
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": created,
        "completed_at": None,
        "status": "queued" if body.get("background") else "in_progress",
        "background": given("background", False),
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": model,
        "output": [],
        "parallel_tool_calls": given("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": given("store", True),
        "temperature": given("temperature", 1.0),
        "top_p": given("top_p", 1.0),
        "presence_penalty": given("presence_penalty", 0.0),
        "frequency_penalty": given("frequency_penalty", 0.0),
        "top_logprobs": given("top_logprobs", 0),
        "text": {"format": {"type": "text"}} | (body.get("text") or {}),
        "tool_choice": given("tool_choice", "auto"),
        "tools": to_tools(body.get("tools")),
        "truncation": given("truncation", "disabled"),
        "service_tier": "default" if tier == "auto" else tier,
        "metadata": given("metadata", {}),
        **labels,
    }


def usage_of(usage: Json) -> Json:
    """A chat's usage in a response's words."""
    given, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": given.get("cached_tokens") or 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": made.get("reasoning_tokens") or 0},
        "total_tokens": usage["total_tokens"],
    }
