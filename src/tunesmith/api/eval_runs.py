"""/v1/evals/{eval_id}/runs: order, list, retrieve, cancel and delete runs, and read their output items."""

import shutil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request

from tunesmith.api import eval_rows
from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs, room_for_a_job
from tunesmith.api.evals import check_model, clear, end, to_page
from tunesmith.api.judge import embedding_model
from tunesmith.api.stored import settled
from tunesmith.db import eval_runs, evals
from tunesmith.db.jobs import Job
from tunesmith.db.paging import Order
from tunesmith.errors import InvalidRequest, TunesmithError
from tunesmith.graders.check import check_messages
from tunesmith.graders.template import parse_path
from tunesmith.recipes.eval_run import EvalRunRecipe, SamplingRecipe
from tunesmith.runfolder import RunFolder
from tunesmith.schemas import eval_order
from tunesmith.schemas import evals as wire
from tunesmith.types import new_id, unix_now

router = APIRouter(prefix="/v1/evals/{eval_id}/runs", dependencies=[needs("evals")])
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("", status_code=201, dependencies=[room_for_a_job, Depends(settled)])
def create(eval_id: str, body: eval_order.RunCreate, request: Request, desk: DeskDep, key: KeyDep) -> wire.EvalRun:
    with desk.database.read() as connection:
        definition = evals.get(connection, eval_id, key.project)
    recipe = eval_order.to_recipe(body.data_source, definition, embedding_model=embedding_model(desk))
    if recipe.sampling is not None:
        _check_sampling(desk, key.project, recipe.sampling)
    run = Job(
        id=new_id("evalrun"),
        recipe=recipe.model_dump(mode="json"),
        order=eval_order.to_order(body),
        created=unix_now(),
        kind="eval_run",
        project=key.project,
        parent=eval_id,
        metadata=body.metadata,
        key=key.id,
    )
    _lay_out(desk, run, recipe, body.data_source.source, definition.config.get("metadata"))
    run = desk.queue.submit(run)
    desk.supervisor.wake()
    return _shown(run, request)


def _check_sampling(desk: Desk, project: str, sampling: SamplingRecipe) -> None:
    """Raises InvalidRequest for a model that nobody knows, and for templates that cannot be filled in."""
    check_model(desk, project, sampling.model, "data_source.model")
    param = "data_source.input_messages"
    if sampling.template is not None:
        check_messages(sampling.template, f"{param}.template")
    elif sampling.reference is not None:
        try:
            path = parse_path(sampling.reference)
        except InvalidRequest as error:
            where = f"{param}.item_reference"
            raise InvalidRequest(error.message, hint="Such as item.input.", param=where, code=error.code) from error
        if path[0] != "item":
            message = "A reference to the conversation begins with item."
            raise InvalidRequest(message, hint="Such as item.input.", param=f"{param}.item_reference", code="invalid_template")


def _lay_out(
    desk: Desk, run: Job, recipe: EvalRunRecipe, source: eval_order.Source, metadata: dict[str, str] | None
) -> None:
    """The run's folder with its rows; nothing is left of it when that fails. Raises InvalidRequest, StorageFull."""
    folder = RunFolder(desk.settings.dirs.run(run.id))
    try:
        folder.create(recipe)
        eval_rows.write(desk, run.project, source, folder.data_path(recipe.rows), metadata)
    except TunesmithError:
        shutil.rmtree(folder.root, ignore_errors=True)
        raise


def _shown(run: Job, request: Request) -> wire.EvalRun:
    return wire.run_from_row(run, f"{request.base_url}v1/evals/{run.parent}/runs/{run.id}")


@router.get("")
def list_runs(
    eval_id: str, request: Request, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20, order: Order = "asc",
    status: wire.RunStatus | None = None,
) -> dict[str, Any]:
    with desk.database.read() as connection:
        evals.get(connection, eval_id, key.project)
        found, has_more = eval_runs.list_page(
            connection, eval_id, key.project, after=after, limit=limit, order=order, statuses=wire.states_of(status)
        )
    return to_page([_shown(run, request) for run in found], has_more)


@router.get("/{run_id}")
def retrieve(eval_id: str, run_id: str, request: Request, desk: DeskDep, key: KeyDep) -> wire.EvalRun:
    with desk.database.read() as connection:
        return _shown(eval_runs.get(connection, eval_id, run_id, key.project), request)


@router.post("/{run_id}")
@router.post("/{run_id}/cancel")
def cancel(eval_id: str, run_id: str, request: Request, desk: DeskDep, key: KeyDep) -> wire.EvalRun:
    """Older and newer clients ask for it by two paths."""
    with desk.database.read() as connection:
        eval_runs.get(connection, eval_id, run_id, key.project)
    return _shown(desk.queue.cancel(run_id), request)


@router.delete("/{run_id}")
def delete(eval_id: str, run_id: str, desk: DeskDep, key: KeyDep) -> wire.RunDeleted:
    """A run that goes on is cancelled before."""
    with desk.database.read() as connection:
        run = eval_runs.get(connection, eval_id, run_id, key.project)
    end(desk, run_id, run.is_finished)
    with desk.database.write() as connection:
        eval_runs.forget(connection, run_id)
    clear(desk, run)
    return wire.RunDeleted(run_id=run_id)


# -- output items -----------------------------------------------------------------------------------------------------------


@router.get("/{run_id}/output_items")
def list_items(
    eval_id: str, run_id: str, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20, order: Order = "asc",
    status: Literal["pass", "fail", "error"] | None = None,
) -> dict[str, Any]:
    """`error` is ours: rows that have no grade."""
    with desk.database.read() as connection:
        eval_runs.get(connection, eval_id, run_id, key.project)
        found, has_more = eval_runs.list_items(connection, run_id, after=after, limit=limit, order=order, status=status)
    return to_page([wire.item_from_row(item, eval_id) for item in found], has_more)


@router.get("/{run_id}/output_items/{item_id}")
def retrieve_item(eval_id: str, run_id: str, item_id: str, desk: DeskDep, key: KeyDep) -> wire.OutputItem:
    with desk.database.read() as connection:
        eval_runs.get(connection, eval_id, run_id, key.project)
        return wire.item_from_row(eval_runs.get_item(connection, run_id, item_id), eval_id)
