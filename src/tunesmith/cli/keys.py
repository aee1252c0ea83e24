"""`tunesmith keys create|list|revoke`: API keys in a data directory, also while a server runs on it."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.cli.database import opened

if TYPE_CHECKING:
    from tunesmith.db.keys import Key

app = typer.Typer(no_args_is_help=True, help="API keys.", add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command()
def create(name: str = typer.Argument(..., help="A name for people."), data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Make a key and print it. It is kept hashed and never shown again."""
    from tunesmith.db import keys

    with opened(data_dir, make=True) as database, database.write() as connection:
        key, text = keys.create(connection, name)
    if as_json:
        print(json.dumps(public(key) | {"key": text}))
    else:
        print(text)


@app.command("list")
def list_keys(data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """List all keys, the revoked ones too."""
    from tunesmith.db import keys

    with opened(data_dir) as database, database.read() as connection:
        found = keys.list_all(connection)
    if as_json:
        print(json.dumps([public(key) for key in found], indent=1))
        return
    for key in found:
        state = "works" if key.revoked is None else f"revoked {_day(key.revoked)}"
        print(f"{key.id}  {_day(key.created)}  {state:<20}  {key.name}")


@app.command()
def revoke(
    key: str = typer.Argument(..., help="Id or name of a key."), data_dir: Path = DATA_DIR, as_json: bool = JSON
) -> None:
    """Revoke a key; requests with it are refused from now on."""
    from tunesmith.db import keys

    with opened(data_dir) as database, database.write() as connection:
        gone = keys.revoke(connection, key)
    print(json.dumps(public(gone)) if as_json else f"{gone.id} ({gone.name}) is revoked.")


def public(key: "Key") -> dict[str, Any]:
    """A key without its hash."""
    return {name: value for name, value in asdict(key).items() if name != "hash"}


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d")
