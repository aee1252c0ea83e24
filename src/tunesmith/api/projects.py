"""/v1/projects: create, list, show, rename, limit, archive. For owners of the default project, which is the organization's."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from tunesmith.api.deps import Desk, DeskDep, needs
from tunesmith.api.scopes import scopes_of
from tunesmith.db import projects
from tunesmith.db.keys import Key
from tunesmith.errors import NotFound
from tunesmith.schemas import keys as wire
from tunesmith.schemas.common import to_list

router = APIRouter(prefix="/v1/projects", dependencies=[needs("projects")])


@router.post("")
def create(body: wire.ProjectCreate, desk: DeskDep) -> wire.ProjectObject:
    with desk.database.write() as connection:
        return wire.from_project(projects.create(connection, body.name, wire.to_limits(body.limits)))


@router.get("")
def list_projects(
    desk: DeskDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20, include_archived: bool = False
) -> dict[str, Any]:
    with desk.database.read() as connection:
        found, has_more = projects.list_page(connection, after=after, limit=limit, include_archived=include_archived)
    return to_list([wire.from_project(project) for project in found], has_more=has_more)


@router.get("/{project_id}")
def retrieve(project_id: str, desk: DeskDep) -> wire.ProjectObject:
    with desk.database.read() as connection:
        return wire.from_project(projects.get(connection, project_id))


@router.post("/{project_id}")
def change(project_id: str, body: wire.ProjectChange, desk: DeskDep) -> wire.ProjectObject:
    """New limits hold at once."""
    with desk.database.write() as connection:
        changed = projects.change(connection, project_id, name=body.name, limits=wire.to_limits(body.limits))
    desk.callers.forget()
    return wire.from_project(changed)


@router.post("/{project_id}/archive")
def archive(project_id: str, desk: DeskDep) -> wire.ProjectObject:
    """Its keys work no more."""
    with desk.database.write() as connection:
        gone = projects.archive(connection, project_id)
    desk.callers.forget()
    return wire.from_project(gone)


def reach(desk: Desk, key: Key, project: str | None) -> str | None:
    """Whose keys and usage the caller may see: of `project`, or of all when None. Raises NotFound for others' projects."""
    if "projects.read" not in scopes_of(key):
        if project not in (None, key.project):
            message = f"No such project: {str(project)[:80]}."
            raise NotFound(message, hint="Leave `project` out.", param="project_id", code="project_not_found")
        return key.project
    if project is not None:
        with desk.database.read() as connection:
            return projects.get(connection, project).id
    return None
