"""/v1/keys: create, list, show, change, rotate, revoke. For owners, of their project; for the organization's owners, of any."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.projects import reach
from tunesmith.api.scopes import check_grant, check_known
from tunesmith.db import keys, projects
from tunesmith.errors import InvalidRequest
from tunesmith.schemas import keys as wire
from tunesmith.schemas.common import to_list
from tunesmith.types import unix_now

router = APIRouter(prefix="/v1/keys", dependencies=[needs("keys")])


@router.post("")
def create(body: wire.KeyCreate, desk: DeskDep, key: KeyDep) -> wire.NewKey:
    """Shows the key's text, once. Nobody gives away more than they have."""
    check_known(body.scopes)
    check_grant(key, body.role, body.scopes, body.models)
    project = key.project if body.project is None else reach(desk, key, body.project) or key.project
    if body.expires_at is not None and body.expires_at <= unix_now():
        raise InvalidRequest("expires_at has passed.", hint="Seconds since 1970.", param="expires_at", code="invalid_value")
    with desk.database.write() as connection:
        _check_works(projects.get(connection, project))
        made, text = keys.create(
            connection, body.name, project=project, role=body.role, scopes=body.scopes, models=body.models,
            limits=wire.to_limits(body.limits), expires=body.expires_at,
        )
    return wire.to_new_key(made, text)


@router.get("")
def list_keys(
    desk: DeskDep, key: KeyDep, project: str | None = None, after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:  # fmt: skip
    whose = reach(desk, key, project)
    with desk.database.read() as connection:
        found, has_more = keys.list_page(connection, whose, after=after, limit=limit)
    return to_list([wire.from_key(each) for each in found], has_more=has_more)


@router.get("/{key_id}")
def retrieve(key_id: str, desk: DeskDep, key: KeyDep) -> wire.KeyObject:
    return wire.from_key(_find(desk, key, key_id))


@router.post("/{key_id}")
def change(key_id: str, body: wire.KeyChange, desk: DeskDep, key: KeyDep) -> wire.KeyObject:
    """What it may holds from the next request on. Nobody gives more than they have."""
    old, changes = _find(desk, key, key_id), wire.to_changes(body)
    check_known(body.scopes)
    if changes.keys() & {"scopes", "models"}:
        check_grant(key, old.role, changes.get("scopes", old.scopes), changes.get("models", old.models))
    with desk.database.write() as connection:
        changed = keys.change(connection, old, **changes)
    desk.callers.forget()
    return wire.from_key(changed)


@router.post("/{key_id}/rotate")
def rotate(key_id: str, body: wire.KeyRotate, desk: DeskDep, key: KeyDep) -> wire.NewKey:
    """A successor with the same rights; the old key works for `overlap_seconds` more."""
    old = _find(desk, key, key_id)
    check_grant(key, old.role, old.scopes, old.models)
    with desk.database.write() as connection:
        made, text = keys.rotate(connection, old, body.overlap_seconds)
    desk.callers.forget()
    return wire.to_new_key(made, text)


@router.delete("/{key_id}")
def revoke(key_id: str, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    """Refused from the next request on. The row stays, so that usage keeps its name."""
    old = _find(desk, key, key_id)
    with desk.database.write() as connection:
        keys.revoke(connection, old.id)
    desk.callers.forget()
    return {"id": old.id, "object": "key", "deleted": True}


def _find(desk: Desk, key: keys.Key, key_id: str) -> keys.Key:
    """Raises NotFound."""
    whose = reach(desk, key, None)
    with desk.database.read() as connection:
        return keys.get(connection, key_id, whose)


def _check_works(project: projects.Project) -> None:
    if project.archived is not None:
        raise InvalidRequest(f"The project {project.id} is archived.", hint="Name another one.", param="project")
