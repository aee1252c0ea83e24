"""`tunesmith jobs create RECIPE`: orders a recipe's training from a server, data and all; it serves what comes of it.

The same recipe as `tunesmith train`'s; its files are uploaded. A client of the HTTP API like any other.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.cli.datasets import located
from tunesmith.cli.remote import connect
from tunesmith.cli.train import changed
from tunesmith.errors import InvalidRequest, TrainingFailed
from tunesmith.paths import DataDir
from tunesmith.recipes.run import Recipe, load
from tunesmith.types import TERMINAL

if TYPE_CHECKING:
    import openai

POLL_SECONDS = 0.5
OURS = ("base", "name", "seed", "tracking")
"""What the body says by fields of its own; the rest goes along as `recipe`."""


def create(
    recipe: Path = typer.Argument(..., help="A recipe (.toml or .json); see docs/recipes.md."),
    data: str = typer.Option(None, help="What to train on instead of the recipe's data.train: a file, or hub:OWNER/NAME."),
    set: list[str] = typer.Option([], "--set", help="A field of the recipe, such as method.epochs=5; may be given again."),
    wait: bool = typer.Option(False, "--wait", help="Print the job's events until it ends."),
    url: str = typer.Option(None, help="The server [default: $OPENAI_BASE_URL or http://127.0.0.1:8040/v1]."),
    key: str = typer.Option(None, help="API key [default: $OPENAI_API_KEY, or one made for this order in --data-dir]."),
    data_dir: Path = typer.Option(
        Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder, to make a key in; datasets of a hub go there."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the job as one JSON object."),
) -> None:
    """Order a recipe's training from a server: upload its data, create the job, and with --wait follow it to the end."""
    changes = set + ([] if data is None else [f"data.train={json.dumps(data)}"])
    whole = changed(load(recipe), changes)
    rows = located(whole.data, DataDir(data_dir.absolute()), quiet=as_json)
    with connect(url, key, data_dir) as client:
        job = client.fine_tuning.jobs.create(**to_order(client, whole.model_copy(update={"data": rows})))
        if not as_json:
            typer.echo(f"{job.id} is ordered; follow it with: tunesmith jobs logs {job.id} --follow")
        found = _followed(client, job.id, quiet=as_json) if wait else job.to_dict()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    if wait:
        _tell(found, quiet=as_json)


def to_order(client: "openai.OpenAI", recipe: Recipe) -> dict[str, Any]:
    """The arguments of `jobs.create`; the files are uploaded here."""
    own = recipe.model_dump(mode="json", exclude_defaults=True)
    own["method"] = own.get("method", {}) | {"type": recipe.method.type}
    own["adapter"] = own.get("adapter", {}) | {"type": recipe.adapter.type}
    own["data"] = {name: value for name, value in own["data"].items() if name not in {"train", "validation", "source"}}
    tracking = [
        {"type": each["type"], each["type"]: {name: value for name, value in each.items() if name != "type"}}
        for each in (target.model_dump(mode="json", exclude_none=True) for target in recipe.tracking)
    ]
    order: dict[str, Any] = {"model": recipe.base, "training_file": _upload(client, recipe.data.train), "seed": recipe.seed}
    if recipe.data.validation is not None:
        order["validation_file"] = _upload(client, recipe.data.validation)
    if recipe.name:
        order["suffix"] = recipe.name
    if tracking:
        order["integrations"] = tracking
    return order | {"extra_body": {"recipe": {name: value for name, value in own.items() if name not in OURS}}}


def _upload(client: "openai.OpenAI", path: str) -> str:
    if Path(path).is_dir():
        raise InvalidRequest(f"{path} is several files; a job takes one.", hint="Train it here: tunesmith train RECIPE.")
    return client.files.create(file=Path(path), purpose="fine-tune").id


def _followed(client: "openai.OpenAI", job_id: str, *, quiet: bool) -> dict[str, Any]:
    seen: set[str] = set()
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        events = list(client.fine_tuning.jobs.list_events(job_id, limit=100).data)
        for event in reversed(events):
            if event.id not in seen and not quiet:
                typer.echo(event.message)
            seen.add(event.id)
        if job.status in TERMINAL:
            return job.to_dict()
        time.sleep(POLL_SECONDS)


def _tell(job: dict[str, Any], *, quiet: bool) -> None:
    if job["status"] != "succeeded":
        said = (job.get("error") or {}).get("message") or f"It is {job['status']}."
        raise TrainingFailed(f"{job['id']} did not succeed: {said}", hint=f"See `tunesmith jobs logs {job['id']}`.")
    if not quiet:
        typer.echo(f"Talk to it with: tunesmith chat --model {job['fine_tuned_model']}")
