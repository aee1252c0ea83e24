"""/v1/adapters: the versions of a project's adapters, by content hash, and aliases: names that can be moved between them.

An alias answers like a model wherever a model is named; moving it is promotion, moving it back is rollback.
"""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection

from tunesmith.api.bases import offered
from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.db import aliases, checkpoints, models
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.models.artifact import OURS, WEIGHTS
from tunesmith.models.shelf import read_json, weight_names
from tunesmith.models.whole import is_whole
from tunesmith.schemas import adapters as wire
from tunesmith.schemas.common import to_list

router = APIRouter(prefix="/v1/adapters", dependencies=[needs("adapters")])


@router.get("")
def list_adapters(desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    """Oldest first."""
    return to_list(_versions(desk, key.project))


@router.get("/aliases")
def list_aliases(desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    with desk.database.read() as connection:
        return to_list([wire.from_alias(row) for row in aliases.list_all(connection, key.project)])


@router.post("/aliases")
def put_alias(body: wire.AliasPut, desk: DeskDep, key: KeyDep) -> wire.Alias:
    """Makes it or moves it. From the next request on it answers as the model; what is under way ends as it began."""
    if body.name in desk.settings.aliases or body.name in offered(desk):
        message = f"{body.name!r} is the name of a base, or an alias that the server was started with."
        raise InvalidRequest(message, hint="Choose another name.", param="name", code="name_taken")
    with desk.database.write() as connection:
        try:
            models.get_own(connection, body.model, key.project)
        except NotFound as error:
            raise InvalidRequest(error.message, hint=error.hint, param="model", code=error.code) from error
        return wire.from_alias(aliases.put(connection, key.project, body.name, body.model))


@router.get("/aliases/{name}")
def retrieve_alias(name: str, desk: DeskDep, key: KeyDep) -> wire.Alias:
    with desk.database.read() as connection:
        return wire.from_alias(aliases.get(connection, key.project, name))


@router.delete("/aliases/{name}")
def delete_alias(name: str, desk: DeskDep, key: KeyDep) -> wire.AliasDeleted:
    with desk.database.write() as connection:
        return wire.AliasDeleted(id=aliases.remove(connection, key.project, name).id)


@router.get("/{content_hash}")
def retrieve(content_hash: str, desk: DeskDep, key: KeyDep) -> wire.Adapter:
    for version in _versions(desk, key.project):
        if version.id == content_hash:
            return version
    raise NotFound(f"There is no adapter {content_hash[:80]!r}.", hint="GET /v1/adapters lists them.", param="content_hash")


def _versions(desk: Desk, project: str) -> list[wire.Adapter]:
    with desk.database.read() as connection:
        return versions(connection, project, desk.settings.dirs.root)


def versions(connection: Connection, project: str, root: Path) -> list[wire.Adapter]:
    """Those of a project, oldest first; `root` is the data directory."""
    found = models.list_all(connection, project)
    found += [models.from_checkpoint(row) for row in checkpoints.list_all(connection, project)]
    named = aliases.list_all(connection, project)
    same: dict[str, list[models.FineTuned]] = {}
    for model in sorted(found, key=lambda model: model.created):
        same.setdefault(model.content_hash, []).append(model)
    return [wire.from_models(group, named, _facts(root / group[0].path)) for group in same.values()]


def _facts(folder: Path) -> dict[str, Any]:
    """What an adapter's files say of it; nothing where they are gone."""
    if not (folder / OURS).is_file():
        return {}
    weights = [folder / name for name in weight_names(folder)] if is_whole(folder) else [folder / WEIGHTS]
    return read_json(folder / OURS) | {"bytes": sum(path.stat().st_size for path in weights)}
