"""Fine-tuning jobs on the wire: what a client may order, and what it is told about a job, its events and its checkpoints.

OpenAI's fields are read here and become a recipe in `to_recipe`; what OpenAI has no field for comes as `recipe`, any part of
the recipe, which the recipe's own class validates.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.db.events import JobEvent
from tunesmith.db.jobs import Job
from tunesmith.db.metrics import StepMetrics
from tunesmith.errors import InvalidRecipe, InvalidRequest
from tunesmith.recipes.run import Recipe, merge, parse
from tunesmith.schemas.common import ORGANIZATION, Body, Wire
from tunesmith.types import JobStatus

Auto = Literal["auto"]
HYPERPARAMETERS = {"n_epochs": "epochs", "batch_size": "batch_size", "learning_rate_multiplier": "learning_rate_multiplier"}
"""OpenAI's name -> the method's field."""


class Hyperparameters(Body):
    """Numbers of supervised fine-tuning; `auto` lets `recipes/auto.py` choose."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=100)] = "auto"


class Supervised(Body):
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Method(Body):
    type: Literal["supervised"]
    supervised: Supervised = Field(default_factory=Supervised)


class JobCreate(Body):
    """The body of POST /v1/fine_tuning/jobs."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    training_file: Annotated[str, Field(min_length=1, max_length=200)]
    validation_file: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._ -]*$")] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    """OpenAI's older place for the numbers; `method` wins."""
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    integrations: Annotated[list[dict[str, Any]], Field(max_length=5)] | None = None
    recipe: dict[str, Any] | None = None

    @property
    def numbers(self) -> Hyperparameters:
        if self.method is not None:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()


SET_ELSEWHERE = {
    ("base",): "model",
    ("data", "train"): "training_file",
    ("data", "validation"): "validation_file",
}
"""Fields of a recipe that a client sets through OpenAI's own: files and bases are named by id, never by path."""


def to_recipe(body: JobCreate, *, base: str, train: str, validation: str | None) -> Recipe:
    """The whole recipe of an order; `train` and `validation` are names in the run folder.

    Raises InvalidRequest for what we cannot do, InvalidRecipe with the path `recipe.<field>` for a wrong field.
    """
    if body.integrations:
        raise InvalidRequest(
            "Integrations are not offered here.", hint="Leave `integrations` out.", param="integrations", code="unsupported_value"
        )
    part = body.recipe or {}
    _refuse_set_elsewhere(part)
    whole: dict[str, Any] = {
        "base": base,
        "name": body.suffix or "",
        "data": {"train": train, "validation": validation},
        "method": {
            field: value for name, field in HYPERPARAMETERS.items() if (value := getattr(body.numbers, name)) != "auto"
        },
    }
    if body.seed is not None:
        whole["seed"] = body.seed
    try:
        return parse(merge(whole, part))
    except InvalidRecipe as error:
        path = error.param if error.param == "recipe" else f"recipe.{error.param}"
        raise InvalidRecipe(f"recipe.{error.message}", hint=error.hint, param=path) from error


def to_order(body: JobCreate, recipe: Recipe) -> dict[str, Any]:
    """What the client asked for, as the job echoes it."""
    return {
        "model": recipe.base,
        "training_file": body.training_file,
        "validation_file": body.validation_file,
        "suffix": recipe.name or None,
        "hyperparameters": body.numbers.model_dump(),
    }


def _refuse_set_elsewhere(part: dict[str, Any]) -> None:
    for path, instead in SET_ELSEWHERE.items():
        inner: Any = part
        for name in path[:-1]:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and path[-1] in inner:
            field = ".".join(("recipe", *path))
            raise InvalidRecipe(f"{field}: is set by `{instead}`.", hint=f"Pass `{instead}` and leave it out here.", param=field)


class JobError(Wire):
    code: str
    message: str
    param: str | None = None


class FineTuningJob(Wire):
    """OpenAI's object, and beside it `recipe`: the whole recipe as it is run."""

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
    result_files: list[str] = []
    trained_tokens: int | None
    error: JobError | None
    seed: int
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    metadata: dict[str, str] | None
    integrations: list[dict[str, Any]] = []
    user_provided_suffix: str | None
    recipe: dict[str, Any]
    attempt: int
    """Which try this is; more than 1 after a crash, a pause or a restart of the server."""


def from_row(job: Job) -> FineTuningJob:
    result = job.result or {}
    order = job.order
    numbers = order["hyperparameters"] | _chosen(result.get("hyperparameters", {}))
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
        trained_tokens=result.get("trained_tokens"),
        error=None if job.error is None else JobError(**job.error),
        seed=job.recipe["seed"],
        hyperparameters=numbers,
        method={"type": "supervised", "supervised": {"hyperparameters": numbers}},
        metadata=job.metadata,
        user_provided_suffix=order["suffix"],
        recipe=job.recipe,
        attempt=job.attempt,
    )


def _chosen(method: dict[str, Any]) -> dict[str, Any]:
    """What a finished run's method had in the end, by OpenAI's names; 3.0 epochs are 3."""
    numbers = {name: method[field] for name, field in HYPERPARAMETERS.items() if method.get(field) is not None}
    return {name: int(value) if value == int(value) else value for name, value in numbers.items()}


class Event(Wire):
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


METRICS = {"loss": "train_loss", "token_accuracy": "train_mean_token_accuracy"}
VALIDATION = {"loss": "valid_loss", "token_accuracy": "valid_mean_token_accuracy"}
"""Our name in an event -> OpenAI's, for steps and for measurements on held-out rows."""


def event_from_row(event: JobEvent) -> Event:
    names = {"step": METRICS, "eval": VALIDATION}.get(event.type)
    data = event.payload if names is None else {names.get(key, key): value for key, value in event.payload.items()}
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


def checkpoint_from_row(event: JobEvent, step: StepMetrics | None) -> Checkpoint:
    """`step` is the current row of the checkpoint's step. A checkpoint is kept for resuming; it is not served by name."""
    number = int(event.payload["step"])
    values = {} if step is None else {
        "train_loss": step.loss,
        "train_mean_token_accuracy": step.token_accuracy,
        "valid_loss": step.valid_loss,
        "valid_mean_token_accuracy": step.valid_token_accuracy,
    }
    return Checkpoint(
        id=event.id.replace("ftevent-", "ftckpt-"),
        created_at=int(event.time),
        fine_tuning_job_id=event.job_id,
        fine_tuned_model_checkpoint=f"{event.job_id}:ckpt-step-{number}",
        step_number=number,
        metrics={"step": number} | {name: value for name, value in values.items() if value is not None},
    )
