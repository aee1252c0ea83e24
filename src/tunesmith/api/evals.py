"""/v1/evals: define, list, retrieve, change and delete evals."""

import shutil
from typing import Annotated, Any

from fastapi import APIRouter, Query

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.resolve import resolve
from tunesmith.db import eval_runs, evals
from tunesmith.db.evals import OrderBy
from tunesmith.db.jobs import Job
from tunesmith.db.paging import Order
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.evals.rows import check_schema
from tunesmith.graders.check import check, judges
from tunesmith.recipes.grader import Criterion, TextSimilarity
from tunesmith.schemas import evals as wire
from tunesmith.schemas.common import to_list
from tunesmith.schemas.graders import to_echo
from tunesmith.types import new_id, unix_now

router = APIRouter(prefix="/v1/evals", dependencies=[needs("evals")])
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("", status_code=201)
def create(body: wire.EvalCreate, desk: DeskDep, key: KeyDep) -> wire.EvalObject:
    if isinstance(body.data_source_config, wire.CustomConfig):
        check_schema(body.data_source_config.item_schema)
    for number, criterion in enumerate(body.testing_criteria):
        _check_criterion(desk, key.project, criterion, f"testing_criteria.{number}")
    now = unix_now()
    new = evals.Eval(
        id=new_id("eval"),
        name=body.name,
        config=body.data_source_config.model_dump(mode="json"),
        criteria=[to_echo(each.model_dump(mode="json", exclude_unset=True)) for each in body.testing_criteria],
        created=now,
        updated=float(now),
        metadata=body.metadata,
        project=key.project,
    )
    with desk.database.write() as connection:
        evals.add(connection, new)
    return wire.from_row(new)


def _check_criterion(desk: Desk, project: str, criterion: Criterion, param: str) -> None:
    """Raises InvalidRequest for a grader that cannot be run, and for a judge that nobody knows."""
    check(criterion, param)
    if isinstance(criterion, TextSimilarity) and criterion.pass_threshold is None:
        where = f"{param}.pass_threshold"
        hint = "Say what score passes."
        raise InvalidRequest(f"Missing required parameter: {where}.", hint=hint, param=where, code="missing_required_parameter")
    for judge in judges(criterion):
        check_model(desk, project, judge, f"{param}.model")


def check_model(desk: Desk, project: str, model: str, param: str) -> None:
    """Raises InvalidRequest for a model that nobody knows."""
    try:
        resolve(desk, model, project)
    except NotFound as error:
        hint = "An alias of that name would do: `tunesmith serve --alias NAME=BASE`."
        raise InvalidRequest(error.message, hint=hint, param=param, code=error.code) from error


@router.get("")
def list_evals(
    desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20, order: Order = "asc",
    order_by: OrderBy = "created_at",
) -> dict[str, Any]:
    with desk.database.read() as connection:
        found, has_more = evals.list_page(connection, key.project, after=after, limit=limit, order=order, order_by=order_by)
    return to_page([wire.from_row(each) for each in found], has_more)


def to_page(items: list[Any], has_more: bool) -> dict[str, Any]:
    """A list whose ids are texts also when it is empty, as OpenAI's specification of evals has it."""
    page = to_list(items, has_more=has_more)
    return page | {"first_id": page["first_id"] or "", "last_id": page["last_id"] or ""}


@router.get("/{eval_id}")
def retrieve(eval_id: str, desk: DeskDep, key: KeyDep) -> wire.EvalObject:
    with desk.database.read() as connection:
        return wire.from_row(evals.get(connection, eval_id, key.project))


@router.post("/{eval_id}")
def update(eval_id: str, body: wire.EvalUpdate, desk: DeskDep, key: KeyDep) -> wire.EvalObject:
    given = {name: getattr(body, name) for name in body.model_fields_set if name == "metadata" or body.name is not None}
    with desk.database.write() as connection:
        return wire.from_row(evals.change(connection, evals.get(connection, eval_id, key.project), **given))


@router.delete("/{eval_id}")
def delete(eval_id: str, desk: DeskDep, key: KeyDep) -> wire.EvalDeleted:
    """Its runs are cancelled, and go with it."""
    with desk.database.read() as connection:
        evals.get(connection, eval_id, key.project)
        runs = eval_runs.list_all(connection, eval_id)
    for run in runs:
        end(desk, run.id, run.is_finished)
    with desk.database.write() as connection:
        for run in eval_runs.list_all(connection, eval_id):
            eval_runs.forget(connection, run.id)
        evals.remove(connection, evals.get(connection, eval_id, key.project))
    for run in runs:
        clear(desk, run)
    return wire.EvalDeleted(eval_id=eval_id)


def end(desk: Desk, run_id: str, is_finished: bool) -> None:
    """A run that goes on is cancelled; one that ends in this moment has ended."""
    if is_finished:
        return
    try:
        desk.queue.cancel(run_id)
    except InvalidRequest as error:
        if error.code != "job_finished":
            raise


def clear(desk: Desk, run: Job) -> None:
    """The folder of a run that is forgotten; where a worker may still write, it stays."""
    if run.lease_token is None:
        shutil.rmtree(desk.settings.dirs.run(run.id), ignore_errors=True)
