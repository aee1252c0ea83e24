"""/v1/models: bases and fine-tuned models. Ids hold slashes, which clients send as %2F."""

import shutil
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from tunesmith.api.bases import offered
from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.db import models
from tunesmith.errors import InvalidRequest
from tunesmith.schemas.common import Deleted, to_list
from tunesmith.schemas.models import Model, from_base, from_row
from tunesmith.serving.routing import to_target

router = APIRouter(prefix="/v1/models", dependencies=[needs("models")])


@router.get("")
async def list_models(desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    """Bases, those of a server elsewhere, and fine-tuned models."""
    here = await run_in_threadpool(_bases, desk)
    elsewhere = [name for name in await desk.router.remote_models() if name not in here]
    tuned = await run_in_threadpool(_tuned, desk, key.project)
    return to_list([*here.values(), *(Model(id=name, created=0, owned_by="upstream") for name in elsewhere), *tuned])


def _bases(desk: Desk) -> dict[str, Model]:
    """By id; the aliases of bases too, for scripts that look whether there is what they name."""
    bases = {base.id: from_base(base.id, base.folder) for base in offered(desk).values()}
    aliases = {name: meant for name, meant in desk.settings.aliases.items() if meant in bases}
    return bases | {name: bases[meant].model_copy(update={"id": name, "base": meant}) for name, meant in aliases.items()}


def _tuned(desk: Desk, project: str) -> list[Model]:
    with desk.database.read() as connection:
        return [from_row(model) for model in models.list_all(connection, project)]


@router.get("/{model_id:path}")
def retrieve(model_id: str, desk: DeskDep, key: KeyDep) -> Model:
    """A base, a fine-tuned model, a checkpoint of one, or what an alias stands for."""
    meant = desk.settings.aliases.get(model_id, model_id)
    base = offered(desk).get(meant)
    if base is not None:
        return from_base(base.id, base.folder)
    with desk.database.read() as connection:
        return from_row(models.get(connection, meant, key.project))


@router.delete("/{model_id:path}")
async def delete(model_id: str, desk: DeskDep, key: KeyDep) -> Deleted:
    """A fine-tuned model with its checkpoints, or a checkpoint alone, and the files. Its job stays, and keeps the name."""
    dirs = desk.settings.dirs
    removed = await run_in_threadpool(_remove, desk, model_id, key.project)
    for gone in removed:
        await desk.router.drop(to_target(gone, dirs.root))
        await run_in_threadpool(shutil.rmtree, dirs.root / gone.path, ignore_errors=True)
    if not removed[0].is_checkpoint:  # with the adapters of epochs that were served no more
        await run_in_threadpool(shutil.rmtree, dirs.run(removed[0].job_id) / "artifacts", ignore_errors=True)
    return Deleted(id=model_id, object="model")


def _remove(desk: Desk, model_id: str, project: str) -> list[models.FineTuned]:
    if model_id in offered(desk):
        raise InvalidRequest(f"{model_id} is a base and stays.", hint="Only fine-tuned models can be deleted.", param="model")
    with desk.database.write() as connection:
        return models.remove(connection, model_id, project)
