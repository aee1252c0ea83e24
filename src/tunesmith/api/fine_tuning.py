"""/v1/fine_tuning/jobs: create, list, retrieve, cancel, pause, resume, events, checkpoints."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from tunesmith.api.bases import find_offered
from tunesmith.api.deps import Desk, DeskDep
from tunesmith.api.files import find_for_training
from tunesmith.db import events, jobs, metrics
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.jobs.prepare import data_name
from tunesmith.schemas import fine_tuning as wire
from tunesmith.schemas.common import to_list
from tunesmith.types import new_id, unix_now

router = APIRouter(prefix="/v1/fine_tuning/jobs")

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("")
def create(body: wire.JobCreate, desk: DeskDep) -> wire.FineTuningJob:
    base = _find_base(desk, body.model)
    training = find_for_training(desk, body.training_file, "training_file")
    validation_name = None
    if body.validation_file is not None:
        validation = find_for_training(desk, body.validation_file, "validation_file")
        validation_name = data_name("validation_file", validation.filename)
    train_name = data_name("training_file", training.filename)
    recipe = wire.to_recipe(body, base=base, train=train_name, validation=validation_name)
    job = jobs.Job(
        id=new_id("ftjob"),
        recipe=recipe.model_dump(mode="json"),
        order=wire.to_order(body, recipe),
        metadata=body.metadata,
        created=unix_now(),
    )
    job = desk.queue.submit(job)
    desk.supervisor.wake()
    return wire.from_row(job)


def _find_base(desk: Desk, model: str) -> str:
    """The id of a base. Raises InvalidRequest with OpenAI's code."""
    try:
        return find_offered(desk, model).id
    except NotFound as error:
        raise InvalidRequest(error.message, hint=error.hint, param="model", code=error.code) from error


@router.get("")
def list_jobs(request: Request, desk: DeskDep, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    pairs = {key[9:-1]: value for key, value in request.query_params.items() if key.startswith("metadata[") and key.endswith("]")}
    with desk.database.read() as connection:
        found, has_more = jobs.list_page(connection, after=after, limit=limit, metadata=pairs)
    return to_list([wire.from_row(job) for job in found], has_more=has_more)


@router.get("/{job_id}")
def retrieve(job_id: str, desk: DeskDep) -> wire.FineTuningJob:
    with desk.database.read() as connection:
        return wire.from_row(jobs.get(connection, job_id))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, desk: DeskDep) -> wire.FineTuningJob:
    return wire.from_row(desk.queue.cancel(job_id))


@router.post("/{job_id}/pause")
def pause(job_id: str, desk: DeskDep) -> wire.FineTuningJob:
    return wire.from_row(desk.queue.pause(job_id))


@router.post("/{job_id}/resume")
def resume(job_id: str, desk: DeskDep) -> wire.FineTuningJob:
    job = desk.queue.resume(job_id)
    desk.supervisor.wake()
    return wire.from_row(job)


@router.get("/{job_id}/events")
def list_events(job_id: str, desk: DeskDep, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    with desk.database.read() as connection:
        jobs.get(connection, job_id)
        found, has_more = events.list_page(connection, job_id, after=after, limit=limit)
    return to_list([wire.event_from_row(event) for event in found], has_more=has_more)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(job_id: str, desk: DeskDep, after: str | None = None, limit: Limit = 10) -> dict[str, Any]:
    with desk.database.read() as connection:
        jobs.get(connection, job_id)
        cursor = after.replace("ftckpt-", "ftevent-") if after else None
        found, has_more = events.list_page(connection, job_id, after=cursor, limit=limit, type="checkpoint")
        steps = {step.step: step for step in metrics.list_current(connection, job_id)}
    page = [wire.checkpoint_from_row(event, steps.get(event.payload["step"])) for event in found]
    return to_list(page, has_more=has_more)
