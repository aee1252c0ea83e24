"""`tunesmith webhooks create|list|show|change|delete|rotate|test|deliveries`: who is told of ends of jobs, in a data directory.

A running server delivers; the verbs here work beside it. Printed as JSON, all of it is OpenAI's objects.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunesmith.cli.database import opened
from tunesmith.cli.nothing import tell_if_none

if TYPE_CHECKING:
    from tunesmith.schemas.webhooks import WebhookEndpoint

app = typer.Typer(no_args_is_help=True, help="Webhooks.", add_completion=False, rich_markup_mode=None)

DATA_DIR = typer.Option(Path(".tunesmith"), envvar="TUNESMITH_DATA_DIR", help="The server's folder.")
JSON = typer.Option(False, "--json", help="Print JSON.")
WEBHOOK = typer.Argument(..., help="Id of a webhook, we_...")
EVENT = typer.Option(None, "--event", metavar="TYPE", help="An event to tell of, such as batch.completed; may be repeated.")
PRIVATE = typer.Option(False, "--allow-private", help="Take a private address, or one without TLS; the server must allow it too.")


@app.command()
def create(
    name: str = typer.Argument(..., help="A name for people."),
    url: str = typer.Argument(..., help="The https:// address that is told."),
    event: list[str] = EVENT,
    project: str = typer.Option("default", help="Id or name of the project whose events they are."),
    allow_private: bool = PRIVATE,
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Make a webhook, for all events when none is named. Prints its signing secret, which is never shown again."""
    from tunesmith.db import projects, webhooks
    from tunesmith.schemas.webhooks import EVENT_TYPES, to_webhook, with_secret

    with opened(data_dir) as database, database.write() as connection:
        owner = projects.find(connection, project)
        webhook = to_webhook(owner.id, name, url, event or list(EVENT_TYPES), allow_private=allow_private)
        webhooks.add(connection, webhook)
        made = with_secret(webhook, webhooks.signing_secrets(connection, webhook)[0])
    print(made.model_dump_json() if as_json else f"{made.id}\n{made.signing_secret}")


@app.command("list")
def list_webhooks(
    project: str = typer.Option(None, help="Id or name of a project [default: all]."), data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """List webhooks, newest first."""
    from tunesmith.db import projects, webhooks
    from tunesmith.schemas.webhooks import from_row

    with opened(data_dir) as database, database.read() as connection:
        owner = None if project is None else projects.find(connection, project).id
        found, _ = webhooks.list_page(connection, owner, after=None, limit=10_000)
        shown = [from_row(each, webhooks.signing_secrets(connection, each)[0]) for each in found]
    if as_json:
        print(json.dumps([each.model_dump() for each in shown], indent=1))
        return
    tell_if_none(found, "No webhooks yet: `tunesmith webhooks create NAME URL` makes one.")
    for each in shown:
        print(f"{each.id}  {each.name}  {each.url}  {', '.join(each.event_types)}")


@app.command()
def show(webhook: str = WEBHOOK, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Show a webhook, without its secret."""
    from tunesmith.db import webhooks
    from tunesmith.schemas.webhooks import from_row

    with opened(data_dir) as database, database.read() as connection:
        found = webhooks.get(connection, webhook, None)
        _print(from_row(found, webhooks.signing_secrets(connection, found)[0]), as_json)


@app.command()
def change(
    webhook: str = WEBHOOK,
    name: str = typer.Option(None, help="Its new name."),
    url: str = typer.Option(None, help="Its new address."),
    event: list[str] = EVENT,
    allow_private: bool = PRIVATE,
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Rename a webhook, or change what it is told, and where: events that are named replace all that it had."""
    from tunesmith.db import webhooks
    from tunesmith.schemas.webhooks import check, from_row

    named = {key: value for key, value in {"name": name, "url": url, "event_types": event or None}.items() if value is not None}
    check(named, allow_private=allow_private)
    with opened(data_dir) as database, database.write() as connection:
        changed = webhooks.change(connection, webhooks.get(connection, webhook, None), **named)
        _print(from_row(changed, webhooks.signing_secrets(connection, changed)[0]), as_json)


@app.command()
def delete(webhook: str = WEBHOOK, data_dir: Path = DATA_DIR, as_json: bool = JSON) -> None:
    """Delete a webhook with all that waits to be delivered to it."""
    from tunesmith.db import webhooks
    from tunesmith.schemas.webhooks import WebhookDeleted

    with opened(data_dir) as database, database.write() as connection:
        webhooks.remove(connection, webhooks.get(connection, webhook, None))
    print(WebhookDeleted(id=webhook).model_dump_json() if as_json else f"{webhook} is deleted.")


@app.command()
def rotate(
    webhook: str = WEBHOOK,
    keep_old: bool = typer.Option(False, "--keep-old", help="Sign with the old secret too, for a day."),
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Give a webhook a new signing secret, and print it."""
    from tunesmith.db import webhooks
    from tunesmith.schemas.webhooks import with_secret

    with opened(data_dir) as database, database.write() as connection:
        rotated = webhooks.rotate(connection, webhooks.get(connection, webhook, None), keep_old=keep_old)
        made = with_secret(rotated, webhooks.signing_secrets(connection, rotated)[0])
    print(made.model_dump_json() if as_json else made.signing_secret)


@app.command("test")
def send_test(
    webhook: str = WEBHOOK,
    event: str = typer.Argument("fine_tuning.job.succeeded", metavar="[TYPE]", help="The event that is sent."),
    allow_private: bool = PRIVATE,
    data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """Send an event that did not happen, now and from here."""
    from tunesmith.db import webhooks
    from tunesmith.jobs.webhooks import send
    from tunesmith.schemas.webhooks import WebhookTested, check

    check({"event_types": [event]}, allow_private=allow_private)
    with opened(data_dir) as database, database.read() as connection:
        found = webhooks.get(connection, webhook, None)
        secrets = webhooks.signing_secrets(connection, found)
    body = webhooks.event_body(event, "test")
    status = send(found.url, body, webhooks.new_delivery_id(), secrets, allow_private=allow_private)
    told = WebhookTested(webhook_endpoint_id=webhook, event_type=event, status_code=status)
    print(told.model_dump_json() if as_json else f"{found.url} answered {status}.")


@app.command()
def deliveries(
    webhook: str = WEBHOOK, limit: int = typer.Option(20, min=1, max=1000, help="Newest so many."), data_dir: Path = DATA_DIR,
    as_json: bool = JSON,
) -> None:
    """List what was delivered, what waits, and what was given up."""
    from tunesmith.db import webhooks
    from tunesmith.schemas.webhooks import delivery_from_row

    with opened(data_dir) as database, database.read() as connection:
        found, _ = webhooks.list_deliveries(connection, webhooks.get(connection, webhook, None), after=None, limit=limit)
    shown = [delivery_from_row(each) for each in found]
    if as_json:
        print(json.dumps([each.model_dump() for each in shown], indent=1))
        return
    tell_if_none(shown, "No deliveries yet: an event that the webhook wants makes one.")
    for each in shown:
        when = datetime.fromtimestamp(each.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{each.id}  {when}  {each.event_type:<27}  {each.status:<9}  {each.num_tries} tries  {each.error or ''}".rstrip())


def _print(webhook: "WebhookEndpoint", as_json: bool) -> None:
    if as_json:
        print(webhook.model_dump_json())
        return
    for name, value in webhook.model_dump(exclude={"object"}).items():
        print(f"{name:<20} {', '.join(value) if isinstance(value, list) else value}")
