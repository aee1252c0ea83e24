"""`tunesmith engines list|install|remove`: the engines that a data directory can serve with. Ours is always there."""

import json
from dataclasses import asdict
from pathlib import Path

import typer

from tunesmith.paths import DataDir

app = typer.Typer(no_args_is_help=True, help="Engines to serve with.", add_completion=False, rich_markup_mode=None)

NAME = typer.Argument(..., metavar="NAME", help="vllm.")
DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command("list")
def list_engines(data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """List engines, and which of them are installed."""
    from tunesmith.serving import installs

    found = {each.name: each for each in installs.installed(DataDir(data_dir.absolute()))}
    rows = [{"name": "embedded", "is_installed": True, "package": "tunesmith"}]
    rows += [{"name": name, "is_installed": name in found, "package": found[name].package if name in found else None}
             for name in installs.NAMES]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['name']:<10} {row['package'] if row['is_installed'] else 'not installed'}")


@app.command()
def install(name: str = NAME, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Install an engine, in an environment of its own. One that was interrupted is gone on with."""
    from rich.console import Console

    from tunesmith.serving import installs
    from tunesmith.serving.memory import has_gpu

    console = Console(stderr=True, highlight=False, markup=False)
    with console.status(f"Installing {name} ...") as status:

        def show(line: str) -> None:
            status.update(line[: console.width - 4])

        done = installs.install(name, DataDir(data_dir.absolute()).make(), has_gpu=has_gpu(), say=console.print, show=show)
    if as_json:
        print(json.dumps(asdict(done), indent=1))
    else:
        print(f"{done.package} is installed. `tunesmith serve --engine {name}` serves with it.")


@app.command()
def remove(name: str = NAME, data_dir: Path = DATA_DIR) -> None:
    """Delete an engine's environment, also one that was not finished."""
    from tunesmith.serving import installs

    installs.remove(name, DataDir(data_dir.absolute()))
    print(f"{name} is removed.")
