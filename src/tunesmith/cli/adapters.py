"""`tunesmith adapters list|show|aliases|alias|unalias`: versions of a data directory's adapters, and the names that traffic uses.

Works beside a running server, which takes a moved alias from the next request on.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.cli.database import opened
from tunesmith.cli.nothing import tell_if_none
from tunesmith.paths import DataDir

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = typer.Typer(
    no_args_is_help=True, help="Adapters and aliases of models.", add_completion=False, rich_markup_mode=None
)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
PROJECT = typer.Option("default", help="Id or name of a project.")
JSON = typer.Option(False, "--json", help="Print JSON.")
NAME = typer.Argument(..., metavar="NAME", help="An alias.")


@app.command("list")
def list_adapters(project: str = PROJECT, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """List versions, oldest first, with the models and aliases that each answers as."""
    from tunesmith.api.adapters import versions

    with opened(data_dir) as database, database.read() as connection:
        found = versions(connection, _id_of(connection, project), DataDir(data_dir.absolute()).root)
    if as_json:
        print(json.dumps([version.model_dump() for version in found], indent=1))
        return
    tell_if_none(found, "No adapters yet: a fine-tuning job makes one.")
    for version in found:
        print(f"{version.id[:12]}  {', '.join([*version.aliases, *version.models])}")


@app.command()
def show(
    model: str = typer.Argument(..., help="A run folder, an adapter's folder, or a fine-tuned model's id."),
    data_dir: Path = DATA_DIR, as_json: bool = JSON,
) -> None:
    """Show what an adapter is, how it was proven, and what other precisions change."""
    from tunesmith.cli.local_model import find_target
    from tunesmith.errors import InvalidRequest
    from tunesmith.models.drift import read_drift
    from tunesmith.models.shelf import read_json
    from tunesmith.models.whole import read_trained

    target = find_target(model, data_dir)
    if target.adapter is None and not target.is_whole:
        raise InvalidRequest(f"{model} is a base.", hint="`tunesmith models show` tells of bases.")
    folder = target.adapter.path if target.adapter is not None else Path(target.base)
    proof = read_json(folder / "proof.json") if (folder / "proof.json").is_file() else None
    drift = {name: asdict(found) for name, found in read_drift(folder).items()}
    told = asdict(read_trained(folder)) | {"proof": proof, "drift": drift}
    print(json.dumps(told, indent=1)) if as_json else _show(told)


def _show(told: dict[str, Any]) -> None:
    size = f", rank {told['rank']}, scale {told['scaling']:g}" if told["rank"] else ""
    size += f", {told['num_virtual']} virtual tokens" if told["num_virtual"] else ""
    print(f"{told['content_hash'][:12]}  {told['kind']}{size}, on {told['base']} ({told['quantization']})\n{told['path']}")
    proof = told["proof"]
    if proof is None:
        print("It was not proven yet: tunesmith verify")
    else:
        print(f"Proven on {proof['tokens']:,} tokens: what is served is at most {proof['worst']:.1g} nats from what was trained.")
    for name, found in told["drift"].items():
        losses = f"loss {found['loss_there']:.4f} instead of {found['loss']:.4f}"
        print(f"On {name}: {found['kl']:.4f} nats away in the mean (KL), {losses}.")


@app.command("aliases")
def list_aliases(project: str = PROJECT, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """List aliases, oldest first."""
    from tunesmith.db import aliases
    from tunesmith.schemas.adapters import from_alias

    with opened(data_dir) as database, database.read() as connection:
        found = [from_alias(row) for row in aliases.list_all(connection, _id_of(connection, project))]
    if as_json:
        print(json.dumps([alias.model_dump() for alias in found], indent=1))
        return
    tell_if_none(found, "No aliases yet: `tunesmith adapters alias NAME MODEL` sets one.")
    for alias in found:
        print(f"{alias.name:<24}  {alias.model}{f'  (before: {alias.previous})' if alias.previous else ''}")


@app.command()
def alias(
    name: str = NAME, model: str = typer.Argument(..., help="A fine-tuned model, or a checkpoint of one."),
    project: str = PROJECT, data_dir: Path = DATA_DIR, as_json: bool = JSON,
) -> None:
    """Make an alias, or move it: promotion, or rollback."""
    from tunesmith.db import aliases, models
    from tunesmith.errors import InvalidRequest
    from tunesmith.schemas.adapters import AliasPut, from_alias, is_alias

    if not is_alias(name):
        raise InvalidRequest(f"{name!r} is no alias.", hint="Letters, digits and ._-, at most 64.", param="name")
    wanted = AliasPut(name=name, model=model)
    with opened(data_dir) as database, database.write() as connection:
        owner = _id_of(connection, project)
        models.get_own(connection, wanted.model, owner)
        made = from_alias(aliases.put(connection, owner, wanted.name, wanted.model))
    _say(made.model_dump(), f"{name} is {model}.", as_json)


@app.command()
def unalias(name: str = NAME, project: str = PROJECT, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Take an alias away; the model stays."""
    from tunesmith.db import aliases
    from tunesmith.schemas.adapters import AliasDeleted

    with opened(data_dir) as database, database.write() as connection:
        gone = aliases.remove(connection, _id_of(connection, project), name)
    _say(AliasDeleted(id=gone.id).model_dump(), f"{name} is no alias any more.", as_json)


def _id_of(connection: "Connection", project: str) -> str:
    from tunesmith.db import projects

    return projects.find(connection, project).id


def _say(value: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(value, indent=1) if as_json else text)
