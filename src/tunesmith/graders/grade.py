"""A grader's score of one answer. Who judges and who embeds is handed in; nothing is raised for what a row or a model does wrong.

`item` is the row, `sample` the answer: `output_text`, and where there are any `output_json`, `output_tools` and `choices`.
"""

import asyncio
from typing import Any

from tunesmith.completer import Judge
from tunesmith.errors import TunesmithError
from tunesmith.graders import formula
from tunesmith.graders import judge as judges
from tunesmith.graders.similarity import MAX_CHARACTERS, METRICS, cosine
from tunesmith.graders.template import MissingVariable, Values, render
from tunesmith.recipes.grader import Grader, LabelModel, Multi, Python, ScoreModel, Single, StringCheck, TextSimilarity
from tunesmith.types import Graded, Usage


async def grade(grader: Grader, item: Any, sample: Any, judge: Judge) -> Graded:
    """`grader` has passed `check`."""
    values = {"item": item, "sample": sample}
    if isinstance(grader, Multi):
        return await _multi(grader, values, judge)
    return await _single(grader, values, judge)


async def _single(grader: Single, values: Values, judge: Judge) -> Graded:
    try:
        if isinstance(grader, StringCheck):
            return Graded(string_check(grader.operation, render(grader.input, values), render(grader.reference, values)))
        if isinstance(grader, TextSimilarity):
            return await _similarity(grader, values, judge)
        if isinstance(grader, ScoreModel):
            return _judged(grader.model, await judges.score(grader, values, judge))
        if isinstance(grader, LabelModel):
            return _judged(grader.model, await judges.label(grader, values, judge))
    except MissingVariable as error:
        return Graded(0.0, {"invalid_variable_error": True}, str(error))
    return _not_run(grader)


def _not_run(grader: Python) -> Graded:
    """The code of a python grader is never executed here."""
    failure = {"python_grader_server_error": True, "python_grader_server_error_type": "not_available"}
    return Graded(0.0, failure, "Python graders are not available.")


def string_check(operation: str, answer: str, right: str) -> float:
    """1.0 or 0.0; `like` means that the answer contains what is right, `ilike` in any case."""
    if operation in ("like", "ilike"):
        return float(right in answer if operation == "like" else right.casefold() in answer.casefold())
    return float((answer == right) is (operation == "eq"))


async def _similarity(grader: TextSimilarity, values: Values, judge: Judge) -> Graded:
    """Raises MissingVariable."""
    answer, right = render(grader.input, values), render(grader.reference, values)
    if max(len(answer), len(right)) > MAX_CHARACTERS:
        return Graded(0.0, {"other_error": True}, f"A text is longer than {MAX_CHARACTERS} characters.")
    if grader.evaluation_metric != "cosine":
        # In a thread: comparing long texts must not hold up the event loop, and with it everybody's streams.
        return Graded(await asyncio.to_thread(METRICS[grader.evaluation_metric], answer, right))
    try:
        return Graded(cosine(*await judge.embed([answer, right])))
    except TunesmithError as error:
        return Graded(0.0, {"model_grader_server_error": True, "model_grader_server_error_details": str(error)}, str(error))


def _judged(model: str, verdict: judges.Verdict) -> Graded:
    reasons = {
        "model_grader_parse_error": "The judge's answer holds no result that can be read.",
        "model_grader_refusal_error": "The judge refused to answer.",
    }
    known = [reasons[error] for error in verdict.errors if error in reasons]
    reason = verdict.errors.get("model_grader_server_error_details") or "".join(known)
    usage = {model: verdict.usage | {"invocation_count": 1}} if verdict.usage else {}
    return Graded(verdict.score, verdict.errors, reason, usage=usage, sample=verdict.sample)


async def _multi(grader: Multi, values: Values, judge: Judge) -> Graded:
    """The parts are asked at once; a part that went wrong counts 0 in the formula, and its errors are the whole's."""
    parts = await asyncio.gather(*(_single(part, values, judge) for part in grader.graders.values()))
    scores = {name: part.score for name, part in zip(grader.graders, parts, strict=True)}
    errors: dict[str, Any] = {}
    usage: Usage = {}
    for part in parts:
        errors |= part.errors
        usage = add_usage(usage, part.usage)
    reasons = [part.reason for part in parts if part.reason]
    try:
        value = formula.compute(formula.parse(grader.calculate_output, set(grader.graders)), scores)
    except TunesmithError as error:
        value, errors, reasons = 0.0, errors | {"other_error": True}, [*reasons, str(error)]
    return Graded(value, errors, " ".join(reasons), scores, usage)


def add_usage(a: Usage, b: Usage) -> Usage:
    """Counts of both, judge by judge."""
    return {
        model: {
            key: a.get(model, {}).get(key, 0) + b.get(model, {}).get(key, 0) for key in (a.get(model) or b[model])
        }
        for model in dict.fromkeys([*a, *b])
    }


def threshold(grader: Single) -> float:
    """The least score that passes in an eval."""
    if isinstance(grader, (TextSimilarity, Python)):
        return 1.0 if grader.pass_threshold is None else grader.pass_threshold
    if isinstance(grader, ScoreModel):
        low, high = grader.range or judges.DEFAULT_RANGE
        return (low + high) / 2 if grader.pass_threshold is None else grader.pass_threshold
    return 1.0
