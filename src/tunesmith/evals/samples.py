"""One row's answer: asked of a model, or brought by the row. Who answers is handed in.

Two shapes come of it: what templates see (`output_text`, `output_json`, `output_tools`, `choices`), and OpenAI's `sample` object
of an output item, which shows input and output. What goes wrong is said in both, and never raised.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from tunesmith.completer import Completer, Completion
from tunesmith.errors import InvalidRequest, TunesmithError
from tunesmith.evals.rows import Row
from tunesmith.graders.judge import to_messages, usage_of
from tunesmith.graders.template import look_up, parse_path
from tunesmith.recipes.eval_run import SamplingRecipe
from tunesmith.types import Message, Usage

NO_ERROR = {"code": "", "message": ""}
"""OpenAI's specification has an error object always."""
NO_USAGE = {"total_tokens": 0, "completion_tokens": 0, "prompt_tokens": 0, "cached_tokens": 0}


@dataclass(frozen=True)
class Sample:
    """`values` are for templates, `shown` is OpenAI's object; `failed` when there is no answer to grade."""

    values: dict[str, Any]
    shown: dict[str, Any]
    usage: Usage = field(default_factory=dict)
    failed: bool = False


async def make(sampling: SamplingRecipe | None, row: Row, completer: Completer) -> Sample:
    if row.error:
        return failure({}, "invalid_row", row.error)
    if sampling is None:
        return given(row)
    messages: list[Message] = []
    try:
        messages = conversation(sampling, row.item)
        completion = await completer.complete(sampling.model, messages, **sampling.fields)
    except TunesmithError as error:
        return failure(_settings(sampling) | {"input": plain(messages)}, error.code, str(error))
    return _answered(sampling, messages, completion)


def conversation(sampling: SamplingRecipe, item: dict[str, Any]) -> list[Message]:
    """What the model is asked. Raises MissingVariable, InvalidRequest when the row has no conversation where it should."""
    values = {"item": item, "sample": {}}
    if sampling.template is not None:
        return to_messages(sampling.template, values)
    found = look_up(parse_path(sampling.reference or "item.input"), values)
    if isinstance(found, str):
        return [{"role": "user", "content": found}]
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) and "role" in each for each in found):
        hint = "It is a list of messages, or a text."
        raise InvalidRequest(f"{sampling.reference} of the row is no conversation.", hint=hint, code="invalid_row")
    return found


def _answered(sampling: SamplingRecipe, messages: list[Message], completion: Completion) -> Sample:
    text = completion.message.get("content") or ""
    values: dict[str, Any] = {
        "output_text": text,
        "output_tools": completion.message.get("tool_calls") or [],
        "choices": [{"index": 0, "message": completion.message, "finish_reason": completion.finish_reason}],
        "model": sampling.model,
    }
    if sampling.fields.get("response_format", {}).get("type") in ("json_object", "json_schema"):
        values |= with_json(text)
    usage = usage_of(completion)
    said = {"output": plain([completion.message]), "finish_reason": completion.finish_reason, "usage": usage}
    shown = BLANK | _settings(sampling) | {"input": plain(messages)} | said
    return Sample(values, shown, {sampling.model: usage | {"invocation_count": 1}})


def with_json(text: str) -> dict[str, Any]:
    """`output_json`, when the text is JSON."""
    try:
        return {"output_json": json.loads(text)}
    except (ValueError, RecursionError):
        return {}


def given(row: Row) -> Sample:
    """The answer that the row brings along; templates see all that it says of it."""
    text = row.sample.get("output_text")
    output = [{"role": "assistant", "content": text}] if isinstance(text, str) else []
    asked = row.item.get("input")
    shown = BLANK | {"input": plain(asked) if isinstance(asked, list) else [], "output": output}
    if isinstance(row.sample.get("model"), str):
        shown["model"] = row.sample["model"]
    return Sample(row.sample, shown)


def failure(shown: dict[str, Any], code: str, message: str) -> Sample:
    return Sample({}, BLANK | shown | {"error": {"code": code, "message": message}}, failed=True)


BLANK: dict[str, Any] = {
    "input": [], "output": [], "finish_reason": "", "model": "", "usage": NO_USAGE, "error": NO_ERROR,
    "temperature": 0.0, "max_completion_tokens": 0, "top_p": 0.0, "seed": 0,
}
"""OpenAI's object where nothing is known; each of its fields is required."""


def _settings(sampling: SamplingRecipe) -> dict[str, Any]:
    """`max_completion_tokens` is 0 when the run set no limit."""
    names = ("temperature", "top_p", "seed", "max_completion_tokens")
    return {"model": sampling.model} | {name: sampling.fields[name] for name in names if sampling.fields.get(name) is not None}


def plain(messages: list[Any]) -> list[dict[str, str]]:
    """Messages with texts alone, as the object has them; tool calls are written as JSON."""
    return [{"role": str(each.get("role", "")), "content": text_of(each)} for each in messages if isinstance(each, dict)]


def text_of(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not content and message.get("tool_calls"):
        return json.dumps(message["tool_calls"], ensure_ascii=False)
    return content if isinstance(content, str) else ""
