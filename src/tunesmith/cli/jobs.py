"""`tunesmith jobs create|list|show|cancel|logs`: fine-tuning jobs of a data directory, or of a server with --url and --key.

Both sources answer with OpenAI's objects, so that what is printed and what --json gives do not depend on where it came from.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from tunesmith.cli.database import opened
from tunesmith.cli.job_create import create
from tunesmith.cli.nothing import tell_if_none
from tunesmith.types import TERMINAL

if TYPE_CHECKING:
    import openai

    from tunesmith.db.session import Database

app = typer.Typer(no_args_is_help=True, help="Fine-tuning jobs.", add_completion=False, rich_markup_mode=None)

app.command("create")(create)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
URL = typer.Option(None, help="Ask this server instead, such as http://127.0.0.1:8040/v1.")
KEY = typer.Option(None, envvar="OPENAI_API_KEY", help="API key for --url.")
JSON = typer.Option(False, "--json", help="Print JSON.")
JOB = typer.Argument(..., metavar="JOB", help="Id of a job, ftjob-...")
POLL_SECONDS = 0.5

Object = dict[str, Any]


class Source(Protocol):
    """Where jobs are asked for."""

    def list(self, limit: int) -> list[Object]: ...
    def show(self, job_id: str) -> Object: ...
    def cancel(self, job_id: str) -> Object: ...
    def events(self, job_id: str, after: str | None) -> "list[Object]": ...


class Local:
    """The data directory's own database."""

    def __init__(self, database: "Database"):
        self._database = database

    def list(self, limit: int) -> list[Object]:
        from tunesmith.db import jobs
        from tunesmith.schemas.fine_tuning import from_row

        with self._database.read() as connection:
            found, _ = jobs.list_page(connection, after=None, limit=limit)
        return [from_row(job).model_dump() for job in found]

    def show(self, job_id: str) -> Object:
        from tunesmith.db import jobs
        from tunesmith.errors import NotFound
        from tunesmith.schemas.fine_tuning import from_row

        with self._database.read() as connection:
            found = jobs.get(connection, job_id)
        if found.kind != "fine_tuning":
            raise NotFound(f"{job_id} is no fine-tuning job.", hint="`tunesmith batches` and the API show jobs of other kinds.")
        return from_row(found).model_dump()

    def cancel(self, job_id: str) -> Object:
        from tunesmith.jobs.queue import Queue
        from tunesmith.schemas.fine_tuning import from_row

        self.show(job_id)
        return from_row(Queue(self._database).cancel(job_id)).model_dump()

    def events(self, job_id: str, after: str | None) -> "list[Object]":
        from tunesmith.db import events
        from tunesmith.schemas.fine_tuning import event_from_row

        with self._database.read() as connection:
            return [event_from_row(event).model_dump() for event in events.list_since(connection, job_id, after)]


class Remote:
    """A server, through the openai client."""

    def __init__(self, client: "openai.OpenAI"):
        self._jobs = client.fine_tuning.jobs

    def list(self, limit: int) -> list[Object]:
        return [job.to_dict() for job in self._jobs.list(limit=limit).data]

    def show(self, job_id: str) -> Object:
        return self._jobs.retrieve(job_id).to_dict()

    def cancel(self, job_id: str) -> Object:
        return self._jobs.cancel(job_id).to_dict()

    def events(self, job_id: str, after: str | None) -> "list[Object]":
        """The server lists newest first: read until the event that is known, then turn around."""
        found: list[Object] = []
        for event in self._jobs.list_events(job_id, limit=100):
            if event.id == after:
                break
            found.append(event.to_dict())
        return found[::-1]


@contextmanager
def source(data_dir: Path, url: str | None, key: str | None) -> Iterator[Source]:
    if url is None:
        with opened(data_dir) as database:
            yield Local(database)
        return
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        yield Remote(client)


@app.command("list")
def list_jobs(
    limit: int = typer.Option(20, min=1, max=1000, help="Newest so many."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """List jobs, newest first."""
    with source(data_dir, url, key) as jobs:
        found = jobs.list(limit)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    tell_if_none(
        found, "No fine-tuning jobs yet: `tunesmith train` runs a recipe here, the openai client orders jobs of a server."
    )
    for job in found:
        print(f"{job['id']}  {job['status']:<16}  {_time(job['created_at'])}  {job['model']}  {job['fine_tuned_model'] or ''}")


@app.command()
def show(job: str = JOB, data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON) -> None:
    """Show one job."""
    with source(data_dir, url, key) as jobs:
        found = jobs.show(job)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name in ("id", "status", "model", "fine_tuned_model", "training_file", "validation_file", "trained_tokens", "attempt"):
        if found.get(name) is not None:
            print(f"{name:<18} {found[name]}")
    if found.get("error"):
        print(f"{'error':<18} {found['error']['message']}")


@app.command()
def cancel(job: str = JOB, data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON) -> None:
    """Cancel a job; its worker stops and publishes nothing."""
    with source(data_dir, url, key) as jobs:
        found = jobs.cancel(job)
    print(json.dumps(found, indent=1) if as_json else f"{job} is {found['status']}.")


@app.command()
def logs(
    job: str = JOB,
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on until the job ends."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """Print a job's events, oldest first; with --json one object per line."""
    with source(data_dir, url, key) as jobs:
        last = None
        while True:
            status = jobs.show(job)["status"]
            for event in jobs.events(job, last):
                print(json.dumps(event) if as_json else f"{_time(event['created_at'])}  {event['message']}", flush=True)
                last = event["id"]
            if not follow or status in TERMINAL:
                return
            time.sleep(POLL_SECONDS)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
