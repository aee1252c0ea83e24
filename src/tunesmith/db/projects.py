"""Projects: who owns files, jobs, models and answers. The one called `default` is the organization's own and is always there."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from tunesmith.db.paging import page
from tunesmith.db.tables import projects
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.types import DEFAULT_PROJECT, Limits, new_id, unix_now


@dataclass(frozen=True)
class Project:
    """`archived` is a time or None: no key of an archived project works, but its rows stay.

    `limits` hold for all its keys together.
    """

    id: str
    name: str
    created: int
    archived: int | None = None
    limits: Limits | None = None


def from_row(row: Row[Any]) -> Project:
    values = dict(row._mapping)
    del values["num"]
    return Project(**values)


def to_row(project: Project) -> dict[str, Any]:
    return asdict(project)


def create(connection: Connection, name: str, limits: Limits | None = None) -> Project:
    """Raises InvalidRequest for a name that a working project has."""
    _check_free(connection, name)
    project = Project(new_id("proj").replace("-", "_"), name, unix_now(), limits=limits)
    connection.execute(insert(projects).values(to_row(project)))
    return project


def get(connection: Connection, project_id: str) -> Project:
    """Raises NotFound."""
    row = connection.execute(select(projects).where(projects.c.id == project_id)).first()
    if row is None:
        raise _missing(project_id)
    return from_row(row)


def find(connection: Connection, id_or_name: str) -> Project:
    """The project of that id, or the working one of that name. Raises NotFound."""
    named = (projects.c.name == id_or_name) & projects.c.archived.is_(None)
    row = connection.execute(select(projects).where((projects.c.id == id_or_name) | named)).first()
    if row is None:
        raise _missing(id_or_name)
    return from_row(row)


def list_page(
    connection: Connection, *, after: str | None, limit: int, include_archived: bool = False
) -> tuple[list[Project], bool]:
    """Oldest first, and whether there are more."""
    where = [] if include_archived else [projects.c.archived.is_(None)]
    found = page(connection, projects, *where, after=after, limit=limit, order="asc")
    return [from_row(row) for row in found.rows], found.has_more


def change(connection: Connection, project_id: str, *, name: str | None = None, limits: Limits | None = None) -> Project:
    """What is None stays. Raises NotFound, and InvalidRequest for a name that another one has."""
    before = get(connection, project_id)
    if name is not None and name != before.name:
        _check_free(connection, name)
    values = {key: value for key, value in (("name", name), ("limits", limits)) if value is not None}
    if values:
        connection.execute(update(projects).where(projects.c.id == project_id).values(values))
    return get(connection, project_id)


def archive(connection: Connection, project_id: str) -> Project:
    """Its keys work no more. Raises NotFound, and InvalidRequest for the default project."""
    if project_id == DEFAULT_PROJECT:
        raise InvalidRequest("The default project stays.", hint="Archive one that you made.", param="project_id")
    project = get(connection, project_id)
    if project.archived is None:
        connection.execute(update(projects).where(projects.c.id == project_id).values(archived=unix_now()))
    return get(connection, project_id)


def _check_free(connection: Connection, name: str) -> None:
    taken = (projects.c.name == name) & projects.c.archived.is_(None)
    if connection.execute(select(projects.c.id).where(taken)).first() is not None:
        raise InvalidRequest(f"There is a project called {name!r}.", hint="Choose another name.", param="name", code="name_taken")


def _missing(what: str) -> NotFound:
    hint = "`tunesmith projects list` shows what there is."
    return NotFound(f"No such project: {what[:80]}.", hint=hint, param="project_id", code="project_not_found")
