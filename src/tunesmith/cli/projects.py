"""`tunesmith projects create|list|show|change|archive`: who owns files, jobs, models and keys, in a data directory."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunesmith.cli.database import opened
from tunesmith.cli.rights import LIMIT, to_limits

if TYPE_CHECKING:
    from tunesmith.db.projects import Project

app = typer.Typer(no_args_is_help=True, help="Projects.", add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
JSON = typer.Option(False, "--json", help="Print JSON.")
PROJECT = typer.Argument(..., help="Id or name of a project.")


@app.command()
def create(
    name: str = typer.Argument(..., help="A name for people."), limit: list[str] = LIMIT, data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Make a project. `tunesmith keys create --project NAME` makes its keys."""
    from tunesmith.db import projects

    with opened(data_dir, make=True) as database, database.write() as connection:
        made = projects.create(connection, name, to_limits(limit))
    _print(made, as_json)


@app.command("list")
def list_projects(data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """List all projects, the archived ones too."""
    from tunesmith.db import projects
    from tunesmith.schemas.keys import from_project

    with opened(data_dir) as database, database.read() as connection:
        found, _ = projects.list_page(connection, after=None, limit=10_000, include_archived=True)
    if as_json:
        print(json.dumps([from_project(project).model_dump() for project in found], indent=1))
        return
    for project in found:
        _print(project, as_json)


@app.command()
def show(project: str = PROJECT, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Show a project and its limits."""
    from tunesmith.db import projects

    with opened(data_dir) as database, database.read() as connection:
        found = projects.find(connection, project)
    _print(found, as_json)


@app.command()
def change(
    project: str = PROJECT,
    name: str = typer.Option(None, help="Its new name."),
    limit: list[str] = LIMIT,
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Rename a project, or limit it anew: the limits that are named replace all that it had."""
    from tunesmith.db import projects

    with opened(data_dir) as database, database.write() as connection:
        found = projects.find(connection, project)
        changed = projects.change(connection, found.id, name=name, limits=to_limits(limit))
    _print(changed, as_json)


@app.command()
def archive(project: str = PROJECT, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Archive a project: its keys work no more, its files, jobs and usage stay."""
    from tunesmith.db import projects

    with opened(data_dir) as database, database.write() as connection:
        gone = projects.archive(connection, projects.find(connection, project).id)
    _print(gone, as_json)


def _print(project: "Project", as_json: bool) -> None:
    from tunesmith.schemas.keys import from_project

    if as_json:
        print(from_project(project).model_dump_json())
        return
    limits = ", ".join(f"{name}={value}" for name, value in (project.limits or {}).items()) or "no limits"
    print(f"{project.id}  {'works' if project.archived is None else 'archived'}  {project.name}  {limits}")
