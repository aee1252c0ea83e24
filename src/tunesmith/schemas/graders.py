"""Graders on the wire: one is run on one answer, or only looked at. What a grader is stands in `recipes/grader.py`."""

from typing import Annotated, Any

from pydantic import Field

from tunesmith.recipes.grader import Grader
from tunesmith.schemas.common import Body, Wire
from tunesmith.types import Graded

ERRORS: dict[str, bool | None] = {
    "formula_parse_error": False,
    "sample_parse_error": False,
    "truncated_observation_error": False,
    "unresponsive_reward_error": False,
    "invalid_variable_error": False,
    "other_error": False,
    "python_grader_server_error": False,
    "python_grader_server_error_type": None,
    "python_grader_runtime_error": False,
    "python_grader_runtime_error_details": None,
    "model_grader_server_error": False,
    "model_grader_refusal_error": False,
    "model_grader_parse_error": False,
    "model_grader_server_error_details": None,
}
"""OpenAI's fourteen, with what each is when nothing went wrong."""


class GraderRun(Body):
    """The body of POST /v1/fine_tuning/alpha/graders/run."""

    grader: Grader
    model_sample: Annotated[str, Field(max_length=1_000_000)]
    """The answer; where it is JSON, `sample.output_json` has it too."""
    item: dict[str, Any] = Field(default_factory=dict)
    """The row."""


class GraderValidate(Body):
    """The body of POST /v1/fine_tuning/alpha/graders/validate."""

    grader: Grader


def to_echo(grader: dict[str, Any]) -> dict[str, Any]:
    """A grader that passed, as it was sent, with what OpenAI's shape needs: a name, and one spelling of `ne`."""
    echo = {"name": "", **grader}
    if echo["type"] == "string_check" and echo["operation"] == "neq":
        echo["operation"] = "ne"
    if echo["type"] == "multi":
        parts = echo["graders"]
        is_one = isinstance(parts.get("type"), str)
        echo["graders"] = to_echo(parts) if is_one else {name: to_echo(part) for name, part in parts.items()}
    return echo


class GraderMetadata(Wire):
    name: str
    type: str
    errors: dict[str, Any]
    execution_time: float
    """Seconds."""
    scores: dict[str, float]
    token_usage: int | None
    sampled_model_name: str | None


class GraderResult(Wire):
    """OpenAI's object."""

    reward: float
    sub_rewards: dict[str, float]
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, dict[str, int]]


def from_graded(grader: Grader, graded: Graded, seconds: float) -> GraderResult:
    tokens = sum(usage["total_tokens"] for usage in graded.usage.values())
    return GraderResult(
        reward=graded.score,
        sub_rewards=graded.scores,
        metadata=GraderMetadata(
            name=grader.name,
            type=grader.type,
            errors=ERRORS | graded.errors,
            execution_time=seconds,
            scores=graded.scores,
            token_usage=tokens if graded.usage else None,
            sampled_model_name=next(iter(graded.usage), None),
        ),
        model_grader_token_usage_per_model=graded.usage,
    )
