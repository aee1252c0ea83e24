"""/v1/fine_tuning/jobs: create, list, retrieve, cancel, pause, resume, checkpoints. Events stand in `api/job_events.py`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from tunesmith.api.bases import find_offered
from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs, room_for_a_job
from tunesmith.api.files import find_for_training
from tunesmith.api.resolve import resolve
from tunesmith.api.scopes import check_model
from tunesmith.db import checkpoints, jobs, metrics
from tunesmith.db.keys import Key
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.graders.check import check
from tunesmith.jobs.prepare import data_name
from tunesmith.recipes.run import Recipe
from tunesmith.recipes.tracking import lacking
from tunesmith.schemas import fine_tuning as wire
from tunesmith.schemas.common import to_list
from tunesmith.schemas.tuning_order import JobCreate, Reinforcement, to_order, to_recipe
from tunesmith.types import new_id, unix_now

router = APIRouter(prefix="/v1/fine_tuning/jobs", dependencies=[needs("fine_tuning")])

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("", dependencies=[room_for_a_job])
def create(body: JobCreate, desk: DeskDep, key: KeyDep) -> wire.FineTuningJob:
    recipe = read_order(body, desk, key)
    job = jobs.Job(
        id=new_id("ftjob"),
        recipe=recipe.model_dump(mode="json"),
        order=to_order(body, recipe),
        metadata=body.metadata,
        created=unix_now(),
        project=key.project,
        key=key.id,
    )
    job = desk.queue.submit(job)
    desk.supervisor.wake()
    return wire.from_row(job)


def read_order(body: JobCreate, desk: Desk, key: Key) -> Recipe:
    """The recipe of an order whose base and files are there. Raises InvalidRequest, and Forbidden for a closed base."""
    base = _find_base(desk, body.model, key.project)
    check_model(key, body.model, base)
    names: dict[str, str | None] = {"training_file": None, "validation_file": None}
    for param in names:
        if (file_id := getattr(body, param)) is not None:
            names[param] = data_name(param, find_for_training(desk, file_id, param, key.project).filename)
    if isinstance(body.part, Reinforcement):
        check(body.part.grader, "method.reinforcement.grader")
    recipe = to_recipe(body, base=base, train=str(names["training_file"]), validation=names["validation_file"])
    for tracker in recipe.tracking:
        if (hint := lacking(tracker)) is not None:
            message = "Weights & Biases is not available on this server."
            raise InvalidRequest(message, hint=hint, param="integrations", code="not_available")
    return recipe


def _find_base(desk: Desk, model: str, project: str) -> str:
    """The id of a base, which an alias may name. Raises InvalidRequest with OpenAI's code."""
    try:
        target = resolve(desk, model, project)
        if target.adapter is None and not target.is_whole:
            return find_offered(desk, target.base).id
    except NotFound as error:
        raise InvalidRequest(error.message, hint=error.hint, param="model", code=error.code) from error
    raise InvalidRequest(
        f"Training that goes on from {model} is not available here.", hint="GET /v1/bases lists what can be.", param="model",
        code="not_available",
    )


@router.get("")
def list_jobs(request: Request, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    """`metadata[k]=v` keeps jobs with that pair, `metadata=null` those without any."""
    query = request.query_params
    pairs = {name[9:-1]: value for name, value in query.items() if name.startswith("metadata[") and name.endswith("]")}
    without = query.get("metadata") == "null"
    with desk.database.read() as connection:
        found, has_more = jobs.list_page(
            connection, after=after, limit=limit, project=key.project, metadata=pairs, without_metadata=without
        )
    return to_list([wire.from_row(job) for job in found], has_more=has_more)


@router.get("/{job_id}")
def retrieve(job_id: str, desk: DeskDep, key: KeyDep) -> wire.FineTuningJob:
    return wire.from_row(find_job(desk, job_id, key))


def find_job(desk: Desk, job_id: str, key: Key) -> jobs.Job:
    """Raises NotFound, also for another project's job."""
    with desk.database.read() as connection:
        return jobs.get_own(connection, job_id, key.project)


@router.post("/{job_id}/cancel")
def cancel(job_id: str, desk: DeskDep, key: KeyDep) -> wire.FineTuningJob:
    return wire.from_row(desk.queue.cancel(find_job(desk, job_id, key).id))


@router.post("/{job_id}/pause")
def pause(job_id: str, desk: DeskDep, key: KeyDep) -> wire.FineTuningJob:
    """The job as it was: a worker pauses at its next step, and `paused` is no word of OpenAI's enum, on which clients stumble."""
    before = find_job(desk, job_id, key)
    desk.queue.pause(job_id)
    return wire.from_row(before)


@router.post("/{job_id}/resume")
def resume(job_id: str, desk: DeskDep, key: KeyDep) -> wire.FineTuningJob:
    job = desk.queue.resume(find_job(desk, job_id, key).id)
    desk.supervisor.wake()
    return wire.from_row(job)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 10
) -> dict[str, Any]:
    with desk.database.read() as connection:
        jobs.get_own(connection, job_id, key.project)
        found, has_more = checkpoints.list_page(connection, job_id, after=after, limit=limit)
        steps = {step.step: step for step in metrics.list_current(connection, job_id)}
    return to_list([wire.checkpoint_from_row(row, steps.get(row.step)) for row in found], has_more=has_more)
