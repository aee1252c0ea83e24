"""Asks a judge and reads its answer: a number for `score_model`, a label for `label_model`. Knows no engine.

The judge is held to a JSON schema, {"result", "steps": [{"description", "conclusion"}]}, as OpenAI does. What it says all the
same is data: an answer that cannot be read scores 0 and sets the error that OpenAI has for it.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from tunesmith.completer import Completion, Judge
from tunesmith.errors import TunesmithError
from tunesmith.graders.template import Values, render
from tunesmith.recipes.grader import ContentPart, InputMessage, JudgeSampling, LabelModel, ScoreModel
from tunesmith.types import Message

STEPS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    },
}
DEFAULT_RANGE = (0.0, 1.0)
MAX_TOKENS = 512
"""What a judge may write when its grader sets no limit: a small model, held to a schema, may go on with its steps for ever."""
BEGIN = re.compile(r'\s*\{\s*"result"\s*:\s*')


@dataclass(frozen=True)
class Verdict:
    """`score` is 0 when `errors` says that there is none. `usage` counts tokens, `sample` is what was asked and said."""

    score: float
    errors: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    sample: dict[str, Any] = field(default_factory=dict)


async def score(grader: ScoreModel, values: Values, judge: Judge) -> Verdict:
    """A number, moved into the range. Raises MissingVariable."""
    said, verdict = await _ask(grader, {"type": "number"}, values, judge)
    if verdict.errors:
        return verdict
    low, high = grader.range or DEFAULT_RANGE
    number = _number(said)
    if number is None:
        return Verdict(0.0, {"model_grader_parse_error": True}, verdict.usage, verdict.sample)
    return Verdict(min(high, max(low, number)), {}, verdict.usage, verdict.sample)


async def label(grader: LabelModel, values: Values, judge: Judge) -> Verdict:
    """1 for a passing label, 0 for another. Raises MissingVariable."""
    said, verdict = await _ask(grader, {"type": "string", "enum": grader.labels}, values, judge)
    if verdict.errors:
        return verdict
    if said not in grader.labels:
        return Verdict(0.0, {"model_grader_parse_error": True}, verdict.usage, verdict.sample)
    return Verdict(float(said in grader.passing_labels), {}, verdict.usage, verdict.sample | {"label": said})


async def _ask(grader: ScoreModel | LabelModel, result: dict[str, Any], values: Values, judge: Judge) -> tuple[Any, Verdict]:
    """What the judge's `result` is, and a verdict without a score. Raises MissingVariable."""
    messages = to_messages(grader.input, values)
    sampling = to_sampling(grader.sampling_params or JudgeSampling())
    try:
        completion = await judge.complete(grader.model, messages, response_format=answer_format(result), **sampling)
    except TunesmithError as error:
        failure = {"model_grader_server_error": True, "model_grader_server_error_details": str(error)}
        return None, Verdict(0.0, failure, {}, {"input": messages, "output": []})
    sample = {"input": messages, "output": [completion.message], "finish_reason": completion.finish_reason}
    if completion.message.get("refusal"):
        return None, Verdict(0.0, {"model_grader_refusal_error": True}, usage_of(completion), sample)
    return _result(completion.message.get("content") or ""), Verdict(0.0, {}, usage_of(completion), sample)


def to_messages(messages: list[InputMessage], values: Values) -> list[Message]:
    """The conversation with its templates filled in, as chat has it. Raises MissingVariable."""
    return [{"role": each.role, "content": render(text_of(each), values)} for each in messages]


def text_of(message: InputMessage) -> str:
    """A message's parts as one text."""
    parts = message.content if isinstance(message.content, list) else [message.content]
    return "\n".join(part.text or "" if isinstance(part, ContentPart) else part for part in parts)


def to_sampling(params: JudgeSampling) -> dict[str, Any]:
    """OpenAI's sampling parameters of a grader as fields of a chat completion."""
    fields = params.model_dump(exclude_none=True)
    limit = fields.pop("max_completions_tokens", MAX_TOKENS)
    return {"max_completion_tokens": limit} | fields


def answer_format(result: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"result": result, "steps": STEPS},
        "required": ["result", "steps"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def usage_of(completion: Completion) -> dict[str, int]:
    """Counts of tokens, as OpenAI has them in graders and evals."""
    return {
        "prompt_tokens": completion.num_prompt_tokens,
        "completion_tokens": completion.num_completion_tokens,
        "total_tokens": completion.num_prompt_tokens + completion.num_completion_tokens,
        "cached_tokens": completion.num_cached_tokens,
    }


def _result(text: str) -> Any:
    """`result` of the judge's JSON; a bare number or text, from an upstream that obeys no schema, is the result itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _before_the_cut(text)
    return value.get("result") if isinstance(value, dict) else value


def _before_the_cut(text: str) -> Any:
    """Of JSON whose steps were cut off at the limit of tokens: the result stands first, and is whole if something follows it."""
    begin = BEGIN.match(text)
    if begin is None:
        return text.strip()
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin.end())
    except (ValueError, RecursionError):
        return None
    return value if text[end:].lstrip()[:1] in (",", "}") else None


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
