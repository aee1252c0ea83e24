"""/v1/models: bases and fine-tuned models. Ids hold slashes, which clients send as %2F."""

import shutil
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from tunesmith.api.bases import offered
from tunesmith.api.deps import Desk, DeskDep
from tunesmith.db import models
from tunesmith.errors import InvalidRequest
from tunesmith.schemas.common import Deleted, to_list
from tunesmith.schemas.models import Model, from_base, from_row
from tunesmith.serving.routing import to_target

router = APIRouter(prefix="/v1/models")


@router.get("")
async def list_models(desk: DeskDep) -> dict[str, Any]:
    """Bases, those of a server elsewhere, and fine-tuned models."""
    here = await run_in_threadpool(_bases, desk)
    elsewhere = [name for name in await desk.router.remote_models() if name not in here]
    tuned = await run_in_threadpool(_tuned, desk)
    return to_list([*here.values(), *(Model(id=name, created=0, owned_by="upstream") for name in elsewhere), *tuned])


def _bases(desk: Desk) -> dict[str, Model]:
    return {base.id: from_base(base.id, base.folder) for base in offered(desk).values()}


def _tuned(desk: Desk) -> list[Model]:
    with desk.database.read() as connection:
        return [from_row(model) for model in models.list_all(connection)]


@router.get("/{model_id:path}")
def retrieve(model_id: str, desk: DeskDep) -> Model:
    base = offered(desk).get(model_id)
    if base is not None:
        return from_base(base.id, base.folder)
    with desk.database.read() as connection:
        return from_row(models.get(connection, model_id))


@router.delete("/{model_id:path}")
async def delete(model_id: str, desk: DeskDep) -> Deleted:
    """A fine-tuned model and its adapter's files. Its job stays, and keeps the name."""
    gone = await run_in_threadpool(_remove, desk, model_id)
    await desk.router.drop(to_target(gone, desk.settings.dirs.root))
    await run_in_threadpool(shutil.rmtree, desk.settings.dirs.root / gone.path, ignore_errors=True)
    return Deleted(id=model_id, object="model")


def _remove(desk: Desk, model_id: str) -> models.FineTuned:
    if model_id in offered(desk):
        raise InvalidRequest(f"{model_id} is a base and stays.", hint="Only fine-tuned models can be deleted.", param="model")
    with desk.database.write() as connection:
        return models.remove(connection, model_id)
