"""`tunesmith batches create|list|show|cancel|output`: files of requests that a running server answers in the background."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from tunesmith.cli.nothing import tell_if_none

app = typer.Typer(no_args_is_help=True, help="Batches.", add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder, for a passing key.")
URL = typer.Option(None, help="The server [default: http://127.0.0.1:8040/v1].")
KEY = typer.Option(None, envvar="OPENAI_API_KEY", help="API key [default: a passing one of --data-dir].")
JSON = typer.Option(False, "--json", help="Print JSON.")
BATCH = typer.Argument(..., help="Id of a batch, batch_...")
POLL_SECONDS = 0.5
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@app.command()
def create(
    file: Path = typer.Argument(..., exists=True, dir_okay=False, help="JSONL: one request a line."),
    endpoint: str = typer.Option("/v1/chat/completions", help="What all its requests ask."),
    wait: bool = typer.Option(False, "--wait", help="Go on until the batch ends."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON,
) -> None:
    """Upload a file of requests and order its answers."""
    import time

    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        uploaded = client.files.create(file=file, purpose="batch")
        order: dict[str, Any] = {"input_file_id": uploaded.id, "endpoint": endpoint, "completion_window": "24h"}
        batch = client.batches.create(**order)
        while wait and batch.status not in ENDED:
            time.sleep(POLL_SECONDS)
            batch = client.batches.retrieve(batch.id)
    _print(batch.to_dict(), as_json)


@app.command("list")
def list_batches(
    limit: int = typer.Option(20, min=1, max=100, help="Newest so many."), data_dir: Path = DATA_DIR, url: str = URL,
    key: str = KEY, as_json: bool = JSON,
) -> None:
    """List batches, newest first."""
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        found = [batch.to_dict() for batch in client.batches.list(limit=limit).data]
    if as_json:
        print(json.dumps(found, indent=1))
        return
    tell_if_none(found, "No batches yet: `tunesmith batches create FILE` orders one.")
    for batch in found:
        when = datetime.fromtimestamp(batch["created_at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{batch['id']}  {batch['status']:<11}  {when}  {_counts(batch)}  {batch['endpoint']}")


@app.command()
def show(batch: str = BATCH, data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON) -> None:
    """Show one batch."""
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        found = client.batches.retrieve(batch).to_dict()
    _print(found, as_json)


@app.command()
def cancel(batch: str = BATCH, data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY, as_json: bool = JSON) -> None:
    """Cancel a batch; what is under way is finished, and what was answered is kept."""
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        found = client.batches.cancel(batch).to_dict()
    _print(found, as_json)


@app.command()
def output(
    batch: str = BATCH, errors: bool = typer.Option(False, "--errors", help="The requests that failed, instead."),
    data_dir: Path = DATA_DIR, url: str = URL, key: str = KEY,
) -> None:
    """Print a batch's output file, as JSONL."""
    from tunesmith.cli.remote import connect

    with connect(url, key, data_dir) as client:
        found = client.batches.retrieve(batch)
        file_id = found.error_file_id if errors else found.output_file_id
        if file_id is not None:
            print(client.files.content(file_id).text, end="")


def _counts(batch: dict[str, Any]) -> str:
    counts = batch["request_counts"]
    return f"{counts['completed']}/{counts['total']} answered, {counts['failed']} failed"


def _print(batch: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(batch, indent=1))
        return
    for name in ("id", "status", "endpoint", "input_file_id", "output_file_id", "error_file_id"):
        if batch.get(name) is not None:
            print(f"{name:<16} {batch[name]}")
    print(f"{'requests':<16} {_counts(batch)}")
    for error in (batch.get("errors") or {}).get("data", ()):
        where = "" if error.get("line") is None else f"line {error['line']}: "
        print(f"{'error':<16} {where}{error['message']}")
