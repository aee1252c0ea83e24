"""Fine-tuning jobs on the wire: what a client is told about a job, its events and its checkpoints, in OpenAI's words.

What a client may order stands in `schemas/tuning_order.py`.
"""

import math
from typing import Any, Literal

from tunesmith.db.checkpoints import Checkpoint as CheckpointRow
from tunesmith.db.events import JobEvent
from tunesmith.db.jobs import Job
from tunesmith.db.metrics import StepMetrics
from tunesmith.schemas.common import ORGANIZATION, Wire
from tunesmith.schemas.tuning_order import FIELDS
from tunesmith.types import JobStatus


class JobError(Wire):
    code: str
    message: str
    param: str | None = None


class FineTuningJob(Wire):
    """OpenAI's object, and beside it `recipe`, the whole recipe as it is run, and `attempt`."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    started_at: int | None
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str = f"org-{ORGANIZATION}"
    status: JobStatus
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    error: JobError | None
    seed: int
    hyperparameters: dict[str, Any]
    """Of supervised jobs only; empty for the others, whose numbers stand in `method`."""
    method: dict[str, Any]
    metadata: dict[str, str] | None
    integrations: list[dict[str, Any]]
    user_provided_suffix: str | None
    usage_metrics: None = None
    shared_with_openai: bool = False
    eval_id: str | None = None
    recipe: dict[str, Any]
    attempt: int
    """Which try this is; more than 1 after a crash, a pause or a restart of the server."""


def from_row(job: Job) -> FineTuningJob:
    result, order = job.result or {}, job.order
    type = order.get("method", "supervised")
    numbers = to_numbers(order["hyperparameters"], result.get("hyperparameters", {}))
    return FineTuningJob(
        id=job.id,
        created_at=job.created,
        started_at=job.started,
        finished_at=job.finished,
        estimated_finish=None if job.is_finished else job.estimated_finish,
        model=order["model"],
        fine_tuned_model=result.get("fine_tuned_model"),
        status=job.status,
        training_file=order["training_file"],
        validation_file=order["validation_file"],
        result_files=result.get("result_files", []),
        trained_tokens=result.get("trained_tokens"),
        error=None if job.error is None else JobError(**job.error),
        seed=job.recipe["seed"],
        hyperparameters=numbers if type == "supervised" else {},
        method={"type": type, type: {"hyperparameters": numbers} | order.get("reinforcement", {})},
        metadata=job.metadata,
        integrations=order.get("integrations", []),
        user_provided_suffix=order["suffix"],
        recipe=job.recipe,
        attempt=job.attempt,
    )


def to_numbers(asked: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters by OpenAI's names: what was asked, and in place of each `auto` what the run's method chose."""
    names = {*asked, "n_epochs", "batch_size", "learning_rate_multiplier"}
    known = {name: chosen[field] for name in names if chosen.get(field := FIELDS.get(name, name)) is not None}
    if "n_epochs" in known:
        known["n_epochs"] = max(1, math.ceil(known["n_epochs"]))  # a recipe may train for half an epoch; OpenAI's field is whole
    return asked | known


class Event(Wire):
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


Names = dict[str, tuple[str, ...]]
METRICS: Names = {"loss": ("train_loss",), "token_accuracy": ("train_mean_token_accuracy",)}
VALIDATION: Names = {
    "loss": ("valid_loss", "full_valid_loss"),
    "token_accuracy": ("valid_mean_token_accuracy", "full_valid_mean_token_accuracy"),
}
"""Our name in an event -> OpenAI's, for steps and for measurements on held-out rows. All held-out rows are measured each time,
so OpenAI's two kinds of validation numbers are the same here."""

NAMES: dict[str, Names] = {"step": METRICS, "eval": VALIDATION}


def event_from_row(event: JobEvent) -> Event:
    names = NAMES.get(event.type)
    pairs = event.payload.items()
    data = event.payload if names is None else {name: value for key, value in pairs for name in names.get(key, (key,))}
    return Event(
        id=event.id,
        created_at=int(event.time),
        level=event.level,
        message=event.message,
        type="message" if names is None else "metrics",
        data=data,
    )


class Checkpoint(Wire):
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    id: str
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, Any]


def checkpoint_from_row(row: CheckpointRow, step: StepMetrics | None) -> Checkpoint:
    """`step` holds the numbers of the checkpoint's step."""
    values: dict[str, float | None] = {"step": row.step}
    if step is not None:
        values |= {"train_loss": step.loss, "train_mean_token_accuracy": step.token_accuracy}
        values |= {name: step.valid_loss for name in VALIDATION["loss"]}
        values |= {name: step.valid_token_accuracy for name in VALIDATION["token_accuracy"]}
    return Checkpoint(
        id=row.id,
        created_at=row.created,
        fine_tuning_job_id=row.job_id,
        fine_tuned_model_checkpoint=row.model,
        step_number=row.step,
        metrics={name: value for name, value in values.items() if value is not None},
    )
