"""/v1/fine_tuning/checkpoints/{model}/permissions: which other projects may use a fine-tuned model or a checkpoint of it.

Ids of models hold slashes, which clients send as %2F.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.db import models, permissions, projects
from tunesmith.db.paging import Order
from tunesmith.db.permissions import Permission
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.schemas.common import Body, Wire, to_list

router = APIRouter(prefix="/v1/fine_tuning/checkpoints", dependencies=[needs("permissions")])

ORDERS: dict[str, Order] = {"ascending": "asc", "descending": "desc"}


class PermissionsCreate(Body):
    project_ids: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=100)]


class CheckpointPermission(Wire):
    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str


class PermissionDeleted(Wire):
    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: bool = True


def from_row(row: Permission) -> CheckpointPermission:
    return CheckpointPermission(id=row.id, created_at=row.created, project_id=row.project)


@router.post("/{model:path}/permissions")
def create(model: str, body: PermissionsCreate, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    """All of them or none."""
    with desk.database.write() as connection:
        models.get_own(connection, model, key.project)
        for project_id in body.project_ids:
            try:
                projects.get(connection, project_id)
            except NotFound as error:
                raise InvalidRequest(error.message, hint=error.hint, param="project_ids", code="project_not_found") from error
        made = [permissions.grant(connection, model, project_id) for project_id in dict.fromkeys(body.project_ids)]
    return to_list([from_row(row) for row in made])


@router.get("/{model:path}/permissions")
def list_permissions(
    model: str,
    desk: DeskDep,
    key: KeyDep,
    project_id: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    order: Literal["ascending", "descending"] = "descending",
) -> dict[str, Any]:
    with desk.database.read() as connection:
        models.get_own(connection, model, key.project)
        found, has_more = permissions.list_page(
            connection, model, project=project_id, after=after, limit=limit, order=ORDERS[order]
        )
    return to_list([from_row(row) for row in found], has_more=has_more)


@router.delete("/{model:path}/permissions/{permission_id}")
def delete(model: str, permission_id: str, desk: DeskDep, key: KeyDep) -> PermissionDeleted:
    with desk.database.write() as connection:
        models.get_own(connection, model, key.project)
        permissions.revoke(connection, model, permission_id)
    return PermissionDeleted(id=permission_id)
