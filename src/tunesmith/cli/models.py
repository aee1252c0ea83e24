"""`tunesmith models list|show`: the bases and fine-tuned models of a data directory, or of a server with --url and --key.

`pull`, `add` and `remove`, which change the shelf of bases, stand in `bases.py`.
"""

import json
from pathlib import Path
from typing import Any

import typer

from tunesmith.cli.bases import add, pull, remove
from tunesmith.cli.database import opened
from tunesmith.errors import NotFound
from tunesmith.paths import DataDir

app = typer.Typer(no_args_is_help=True, help="Bases and fine-tuned models.", add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
URL = typer.Option(None, help="Ask this server instead, such as http://127.0.0.1:8040/v1.")
KEY = typer.Option(None, envvar="OPENAI_API_KEY", help="API key for --url.")
JSON = typer.Option(False, "--json", help="Print JSON.")


def _found(data_dir: Path, url: str | None, key: str | None) -> list[dict[str, Any]]:
    """Models as OpenAI's objects; with more fields when read from the data directory."""
    if url is not None:
        from tunesmith.cli.remote import connect

        with connect(url, key, data_dir) as client:
            return [model.to_dict() for model in client.models.list()]
    from tunesmith.db import models
    from tunesmith.models.catalog import list_bases
    from tunesmith.schemas.models import from_base, from_row

    dirs = DataDir(data_dir.absolute())
    found = [
        from_base(base.id, base.folder).model_dump(exclude_none=True)
        | {"max_positions": base.max_positions, "num_parameters": base.num_parameters, "folder": str(base.folder)}
        for base in list_bases(dirs.models)
    ]
    if dirs.database.exists():
        with opened(data_dir) as database, database.read() as connection:
            tuned = models.list_all(connection)
        found += [from_row(model).model_dump(exclude_none=True) | {"folder": str(dirs.root / model.path)} for model in tuned]
    return found


@app.command("list")
def list_models(data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON) -> None:
    """List bases and fine-tuned models."""
    found = _found(data_dir, url, key)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for model in found:
        millions = (model.get("num_parameters") or 0) / 1e6
        print(f"{model['id']:<48}  {f'{millions:.1f} M parameters' if millions else model.get('quantization', '')}")


@app.command()
def show(
    model: str = typer.Argument(..., metavar="MODEL", help="Id of a model."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """Show one model."""
    found = next((each for each in _found(data_dir, url, key) if each["id"] == model), None)
    if found is None:
        raise NotFound(f"There is no model {model!r}.", hint="`tunesmith models list` shows what there is.")
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:<16} {value}")


for command in (pull, add, remove):
    app.command()(command)
