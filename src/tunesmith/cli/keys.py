"""`tunesmith keys create|list|show|rotate|revoke`: API keys in a data directory, also while a server runs on it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunesmith.cli.database import opened
from tunesmith.cli.nothing import tell_if_none
from tunesmith.cli.rights import LIMIT, to_limits, to_seconds

if TYPE_CHECKING:
    from tunesmith.db.keys import Key

app = typer.Typer(no_args_is_help=True, help="API keys.", add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
JSON = typer.Option(False, "--json", help="Print JSON.")
KEY = typer.Argument(..., help="Id or name of a key.")


@app.command()
def create(
    name: str = typer.Argument(..., help="A name for people."),
    project: str = typer.Option("default", help="Id or name of its project."),
    role: str = typer.Option("member", metavar="owner|member|viewer", help="What it may do."),
    scope: list[str] = typer.Option(None, metavar="SCOPE", help="Only this of its role, such as files.read; may be repeated."),
    model: list[str] = typer.Option(None, metavar="PATTERN", help="Only models of this name, such as 'ft:*'; may be repeated."),
    expires: str = typer.Option(None, metavar="30d", help="How long it works: a number and m, h or d."),
    limit: list[str] = LIMIT,
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Make a key and print it. It is kept as a hash and never shown again."""
    from tunesmith.api.scopes import check_known
    from tunesmith.db import keys, projects
    from tunesmith.schemas.keys import KeyCreate
    from tunesmith.types import unix_now

    check_known(scope or None)
    until = None if expires is None else unix_now() + to_seconds(expires)
    with opened(data_dir, make=True) as database, database.write() as connection:
        owner = projects.find(connection, project)
        asked = KeyCreate.model_validate({"name": name, "role": role, "scopes": scope or None, "models": model or None})
        key, text = keys.create(
            connection, asked.name, project=owner.id, role=asked.role, scopes=asked.scopes, models=asked.models,
            limits=to_limits(limit), expires=until,
        )
    _print_new(key, text, as_json)


@app.command("list")
def list_keys(
    project: str = typer.Option(None, help="Id or name of a project [default: all]."), data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """List all keys, the revoked ones too."""
    from tunesmith.db import keys, projects
    from tunesmith.schemas.keys import from_key

    with opened(data_dir) as database, database.read() as connection:
        found = keys.list_all(connection)
        if project is not None:
            owner = projects.find(connection, project).id
            found = [key for key in found if key.project == owner]
    if as_json:
        print(json.dumps([from_key(key).model_dump() for key in found], indent=1))
        return
    tell_if_none(found, "No keys yet: `tunesmith keys create NAME` makes one.")
    for key in found:
        print(f"{key.id}  {_day(key.created)}  {_state(key):<20}  {key.role:<6}  {key.project:<12}  {key.name}")


@app.command()
def show(key: str = KEY, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Show what a key may do, and when it was last used."""
    from tunesmith.db import keys
    from tunesmith.schemas.keys import from_key

    with opened(data_dir) as database, database.read() as connection:
        found = keys.find(connection, key)
    if as_json:
        print(from_key(found).model_dump_json(indent=1))
        return
    print(f"{found.id} ({found.name}): {_state(found)}, {found.role} of {found.project}")
    print(f"scopes      {', '.join(found.scopes) if found.scopes is not None else 'all of its role'}")
    print(f"models      {', '.join(found.models) if found.models is not None else 'all'}")
    print(f"limits      {', '.join(f'{name}={value}' for name, value in (found.limits or {}).items()) or 'none'}")
    print(f"last used   {_day(found.last_used) if found.last_used is not None else 'never'}")


@app.command()
def rotate(
    key: str = KEY,
    overlap: str = typer.Option("24h", metavar="24h", help="How long the old key works on: a number and m, h or d; 0m ends it."),
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Make a key with the same rights and print it; the old one works a while beside it."""
    from tunesmith.db import keys

    with opened(data_dir) as database, database.write() as connection:
        made, text = keys.rotate(connection, keys.find(connection, key), to_seconds(overlap))
    _print_new(made, text, as_json)


@app.command()
def revoke(key: str = KEY, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Revoke a key; a running server refuses it within a second."""
    from tunesmith.db import keys
    from tunesmith.schemas.keys import from_key

    with opened(data_dir) as database, database.write() as connection:
        gone = keys.revoke(connection, key)
    print(from_key(gone).model_dump_json() if as_json else f"{gone.id} ({gone.name}) is revoked.")


def _print_new(key: "Key", text: str, as_json: bool) -> None:
    from tunesmith.schemas.keys import to_new_key

    print(to_new_key(key, text).model_dump_json() if as_json else text)


def _state(key: "Key") -> str:
    from tunesmith.types import unix_now

    if key.revoked is not None:
        return f"revoked {_day(key.revoked)}"
    if key.expires is None:
        return "works"
    return f"{'works until' if key.works_at(unix_now()) else 'expired'} {_day(key.expires)}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
