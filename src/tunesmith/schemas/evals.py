"""Evals on the wire: what a client may define and run, and what it is told. Graders stand in `recipes/grader.py`.

What a client may ask of a run stands in `eval_order.py`.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tunesmith.db.eval_runs import EvalItem
from tunesmith.db.evals import Eval
from tunesmith.db.jobs import Job
from tunesmith.recipes.grader import Criterion
from tunesmith.schemas.common import Body, Wire
from tunesmith.types import JobStatus


def _writable(value: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for what JSON that is sent to others cannot hold."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character") from error
    return value


Object = Annotated[dict[str, Any], AfterValidator(_writable)]
Name = Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]
Label = Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$")]
Metadata = Annotated[dict[Label, Annotated[str, Field(max_length=512, pattern=r"^[^\x00]*$")]], Field(max_length=16)]

# -- definitions ------------------------------------------------------------------------------------------------------------


class CustomConfig(Body):
    type: Literal["custom"]
    item_schema: Object
    include_sample_schema: bool = False


class LogsConfig(Body):
    type: Literal["logs", "stored_completions"]
    metadata: Metadata | None = None


Config = Annotated[CustomConfig | LogsConfig, Field(discriminator="type")]


class EvalCreate(Body):
    """The body of POST /v1/evals."""

    name: Name = ""
    metadata: Metadata | None = None
    data_source_config: Config
    testing_criteria: Annotated[list[Criterion], Field(min_length=1, max_length=100)]


class EvalUpdate(Body):
    """The body of POST /v1/evals/{eval_id}; what is left out stays."""

    name: Name | None = None
    metadata: Metadata | None = None


SAMPLE_SCHEMA = {
    "type": "object",
    "properties": {
        "model": {"type": "string"}, "output_text": {"type": "string"}, "output_json": {}, "choices": {"type": "array"},
        "output_tools": {"type": "array"},
    },
    "required": ["output_text"],
}


class EvalObject(Wire):
    """OpenAI's object."""

    id: str
    object: Literal["eval"] = "eval"
    name: str
    data_source_config: dict[str, Any]
    testing_criteria: list[dict[str, Any]]
    created_at: int
    metadata: dict[str, str] | None


def from_row(each: Eval) -> EvalObject:
    return EvalObject(
        id=each.id,
        name=each.name,
        data_source_config=_echo(each.config),
        testing_criteria=each.criteria,
        created_at=each.created,
        metadata=each.metadata,
    )


def _echo(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as OpenAI answers it: its schema is that of item and sample together."""
    if config["type"] != "custom":
        properties: dict[str, Any] = {"item": {"type": "object"}, "sample": SAMPLE_SCHEMA}
        return config | {"schema": {"type": "object", "properties": properties, "required": ["item", "sample"]}}
    properties = {"item": config["item_schema"]} | ({"sample": SAMPLE_SCHEMA} if config["include_sample_schema"] else {})
    return {"type": "custom", "schema": {"type": "object", "properties": properties, "required": list(properties)}}


# -- runs -------------------------------------------------------------------------------------------------------------------

RunStatus = Literal["queued", "in_progress", "completed", "canceled", "failed"]
STATUS: dict[JobStatus, RunStatus] = {
    "validating_files": "queued",
    "queued": "queued",
    "paused": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "canceled",
}
"""Our word for a job's state -> OpenAI's for a run's, with one l."""


def states_of(status: RunStatus | None) -> list[JobStatus]:
    """Ours, for a filter by OpenAI's."""
    return [ours for ours, theirs in STATUS.items() if theirs == status]


class ApiError(Wire):
    """Both are empty when there is none: OpenAI's specification has this object always."""

    code: str = ""
    message: str = ""


class EvalRun(Wire):
    """OpenAI's object."""

    id: str
    object: Literal["eval.run"] = "eval.run"
    eval_id: str
    status: RunStatus
    model: str
    name: str
    created_at: int
    report_url: str
    result_counts: dict[str, int]
    per_model_usage: list[dict[str, Any]]
    per_testing_criteria_results: list[dict[str, Any]]
    data_source: dict[str, Any]
    metadata: dict[str, str] | None
    error: ApiError


NOTHING_YET: dict[str, Any] = {
    "result_counts": {"total": 0, "errored": 0, "failed": 0, "passed": 0},
    "per_model_usage": [],
    "per_testing_criteria_results": [],
}


def run_from_row(run: Job, url: str) -> EvalRun:
    """`url` is where to read on. A run that goes on, or was cancelled, says what its items came to so far."""
    summary = NOTHING_YET | (run.result or {})
    error = ApiError() if run.error is None else ApiError(code=run.error["code"], message=run.error["message"])
    return EvalRun(
        id=run.id,
        eval_id=run.parent or "",
        status=STATUS[run.status],
        model=run.order["data_source"].get("model") or "",
        name=run.order["name"],
        created_at=run.created,
        report_url=url,
        result_counts=summary["result_counts"],
        per_model_usage=summary["per_model_usage"],
        per_testing_criteria_results=summary["per_testing_criteria_results"],
        data_source=run.order["data_source"],
        metadata=run.metadata,
        error=error,
    )


class OutputItem(Wire):
    """OpenAI's object."""

    id: str
    object: Literal["eval.run.output_item"] = "eval.run.output_item"
    run_id: str
    eval_id: str
    created_at: int
    status: str
    datasource_item_id: int
    datasource_item: dict[str, Any]
    results: list[dict[str, Any]]
    sample: dict[str, Any]


def item_from_row(item: EvalItem, eval_id: str) -> OutputItem:
    return OutputItem(
        id=item.id,
        run_id=item.run_id,
        eval_id=eval_id,
        created_at=item.created,
        status=item.status,
        datasource_item_id=item.row,
        datasource_item=item.item,
        results=item.results,
        sample=item.sample,
    )


class EvalDeleted(Wire):
    object: Literal["eval.deleted"] = "eval.deleted"
    eval_id: str
    deleted: bool = True


class RunDeleted(Wire):
    object: Literal["eval.run.deleted"] = "eval.run.deleted"
    run_id: str
    deleted: bool = True
