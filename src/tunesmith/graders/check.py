"""Can this grader be run at all? Templates, formulas, ranges and labels are read once, before anything is graded or stored.

What has no part here yet is refused with code `not_available`: a grader in `REFUSED`, a metric that the table lacks, images and
audio for a judge. The refusal of a grader vanishes with its line.
"""

import re

from tunesmith.errors import InvalidRequest
from tunesmith.graders import formula, template
from tunesmith.graders.similarity import METRICS
from tunesmith.graders.similarity import REFUSED as REFUSED_METRICS
from tunesmith.recipes.grader import (
    ContentPart,
    Grader,
    InputMessage,
    LabelModel,
    Multi,
    ScoreModel,
    StringCheck,
    TextSimilarity,
)

REFUSED = {
    "python": "A python grader runs code of the client, and this server has no jail to run it in yet",
}
"""Graders that are read but not run, with the reason."""
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def check(grader: Grader, param: str = "grader") -> None:
    """Raises InvalidRequest with the path of the wrong field, beginning with `param`."""
    if grader.type in REFUSED:
        hint = "Use string_check, text_similarity, score_model, label_model or multi."
        raise InvalidRequest(f"{REFUSED[grader.type]}.", hint=hint, param=f"{param}.type", code="not_available")
    if isinstance(grader, (StringCheck, TextSimilarity)):
        _check_texts(grader, param)
    elif isinstance(grader, (ScoreModel, LabelModel)):
        check_messages(grader.input, f"{param}.input")
        _check_range(grader, param) if isinstance(grader, ScoreModel) else _check_labels(grader, param)
    elif isinstance(grader, Multi):
        _check_multi(grader, param)


def check_messages(messages: list[InputMessage], param: str) -> None:
    """Raises InvalidRequest for a template that cannot be read, and for images and audio."""
    for number, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else [message.content]
        for part in parts:
            where = f"{param}.{number}.content"
            if isinstance(part, ContentPart) and part.text is None:
                raise _no_text(part, where)
            _check_template(part.text or "" if isinstance(part, ContentPart) else part, where)


def _no_text(part: ContentPart, param: str) -> InvalidRequest:
    if part.type in ("input_image", "input_audio"):
        message = f"Messages of a grader or an eval take no {part.type} yet."
        return InvalidRequest(message, hint="Send text.", param=param, code="not_available")
    return InvalidRequest(f"The part {part.type} has no text.", param=param, code="missing_required_parameter")


def _check_template(text: str, param: str) -> None:
    try:
        template.paths(text)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, hint=error.hint, param=param, code=error.code) from error


def _check_texts(grader: StringCheck | TextSimilarity, param: str) -> None:
    _check_template(grader.input, f"{param}.input")
    _check_template(grader.reference, f"{param}.reference")
    if isinstance(grader, TextSimilarity) and grader.evaluation_metric in REFUSED_METRICS:
        raise InvalidRequest(
            f"{REFUSED_METRICS[grader.evaluation_metric]}.", hint=f"Use {', '.join(METRICS)} or cosine.",
            param=f"{param}.evaluation_metric", code="not_available",
        )  # fmt: skip


def _check_range(grader: ScoreModel, param: str) -> None:
    if grader.range is None:
        return
    low, high = grader.range
    if low >= high:
        hint = "Write the least and the greatest score, such as [0, 1]."
        raise InvalidRequest(f"{grader.range} is no range.", hint=hint, param=f"{param}.range", code="invalid_value")


def _check_labels(grader: LabelModel, param: str) -> None:
    unknown = [label for label in grader.passing_labels if label not in grader.labels]
    if unknown:
        raise InvalidRequest(
            f"{unknown[0]!r} is a passing label, but none of the labels.", hint=f"There are {', '.join(grader.labels)[:200]}.",
            param=f"{param}.passing_labels", code="invalid_value",
        )  # fmt: skip


def _check_multi(grader: Multi, param: str) -> None:
    for name, part in grader.graders.items():
        if not VARIABLE.fullmatch(name):
            hint = "Letters, digits and _, not beginning with a digit."
            message = f"The formula cannot name a grader {name!r}."
            raise InvalidRequest(message, hint=hint, param=f"{param}.graders", code="invalid_value")
        check(part, f"{param}.graders.{name}")
    try:
        formula.parse(grader.calculate_output, set(grader.graders))
    except InvalidRequest as error:
        raise InvalidRequest(error.message, hint=error.hint, param=f"{param}.calculate_output", code=error.code) from error


def judges(grader: Grader) -> list[str]:
    """The models that a grader asks, each once."""
    parts = list(grader.graders.values()) if isinstance(grader, Multi) else [grader]
    return list(dict.fromkeys(part.model for part in parts if isinstance(part, (ScoreModel, LabelModel))))


def uses_embeddings(grader: Grader) -> bool:
    parts = list(grader.graders.values()) if isinstance(grader, Multi) else [grader]
    return any(isinstance(part, TextSimilarity) and part.evaluation_metric == "cosine" for part in parts)
