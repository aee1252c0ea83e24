"""Webhooks and what was, or is to be, delivered to them. Does not send anything.

An event is written in the transaction that it tells of (an outbox): what is committed is delivered, once or, after a crash
between sending and noting it, twice. A signing secret is not kept: it follows from the server's own and the webhook's salt.
"""

import base64
import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from tunesmith.db.paging import page
from tunesmith.db.secret import purpose_key
from tunesmith.db.tables import deliveries, webhooks
from tunesmith.errors import NotFound
from tunesmith.types import unix_now

OVERLAP_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Webhook:
    """Where to tell of which events. `old_salt` signs beside `salt` until `old_until`."""

    id: str
    project: str
    name: str
    url: str
    event_types: list[str]
    created: int
    updated: int
    salt: str
    old_salt: str | None = None
    old_until: int | None = None


@dataclass(frozen=True)
class Delivery:
    """One event for one webhook. `next_try` is None when there is none any more: it was delivered, or given up."""

    id: str
    webhook_id: str
    type: str
    body: str
    created: int
    tries: int = 0
    next_try: float | None = 0.0
    delivered: int | None = None
    status_code: int | None = None
    error: str | None = None


def from_row(row: Row[Any]) -> Webhook:
    values = dict(row._mapping)
    del values["num"]
    return Webhook(**values)


def delivery_from_row(row: Row[Any]) -> Delivery:
    values = dict(row._mapping)
    del values["num"]
    return Delivery(**values)


def new_salt() -> str:
    return secrets.token_hex(16)


def signing_secrets(connection: Connection, webhook: Webhook) -> list[str]:
    """`whsec_` and base64, as the openai client takes it; the newest first, then the old one while it counts."""
    salts = [webhook.salt]
    if webhook.old_salt is not None and (webhook.old_until or 0) > unix_now():
        salts.append(webhook.old_salt)
    server = connection.get_execution_options()["secret"]
    keys = [purpose_key(server, f"webhook:{webhook.id}:{salt}") for salt in salts]
    return [f"whsec_{base64.b64encode(key).decode()}" for key in keys]


# -- webhooks -----------------------------------------------------------------------------------------------------------


def add(connection: Connection, webhook: Webhook) -> None:
    connection.execute(insert(webhooks).values(asdict(webhook)))


def get(connection: Connection, webhook_id: str, project: str | None) -> Webhook:
    """A webhook of the project, or of any when None. Raises NotFound."""
    mine = webhooks.c.id == webhook_id
    row = connection.execute(select(webhooks).where(mine if project is None else mine & (webhooks.c.project == project))).first()
    if row is None:
        hint = "`tunesmith webhooks list` shows what there is."
        raise NotFound(f"No such webhook endpoint: {webhook_id[:80]}.", hint=hint, param="webhook_endpoint_id")
    return from_row(row)


def list_page(connection: Connection, project: str | None, *, after: str | None, limit: int) -> tuple[list[Webhook], bool]:
    """Newest first, and whether there are more; of all projects when None."""
    where = [] if project is None else [webhooks.c.project == project]
    found = page(connection, webhooks, *where, after=after, limit=limit)
    return [from_row(row) for row in found.rows], found.has_more


def change(connection: Connection, webhook: Webhook, **values: Any) -> Webhook:
    """The webhook with new values; values that are the old ones change nothing."""
    if all(getattr(webhook, name) == value for name, value in values.items()):
        return webhook
    mine = update(webhooks).where(webhooks.c.id == webhook.id).values(**values, updated=unix_now())
    return from_row(connection.execute(mine.returning(webhooks)).one())


def rotate(connection: Connection, webhook: Webhook, *, keep_old: bool) -> Webhook:
    """With a new secret; the old one signs beside it for a day more, if it is kept."""
    until = unix_now() + OVERLAP_SECONDS if keep_old else None
    return change(connection, webhook, salt=new_salt(), old_salt=webhook.salt if keep_old else None, old_until=until)


def remove(connection: Connection, webhook: Webhook) -> None:
    """With all its deliveries."""
    connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook.id))
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook.id))


# -- deliveries ---------------------------------------------------------------------------------------------------------


def new_delivery_id() -> str:
    return f"wh_{secrets.token_hex(16)}"


def event_body(event_type: str, object_id: str) -> str:
    """OpenAI's event object as it is sent, byte for byte: the signature is of these bytes."""
    event = {"id": f"evt_{secrets.token_hex(16)}", "object": "event", "type": event_type, "created_at": unix_now()}
    return json.dumps(event | {"data": {"id": object_id}})


def tell(connection: Connection, project: str, event_type: str, object_id: str) -> None:
    """Notes an event for every webhook of the project that wants it."""
    found = connection.execute(select(webhooks).where(webhooks.c.project == project)).all()
    body = event_body(event_type, object_id)
    for webhook in map(from_row, found):
        if event_type in webhook.event_types:
            due = Delivery(new_delivery_id(), webhook.id, event_type, body, unix_now())
            connection.execute(insert(deliveries).values(asdict(due)))


def is_due(connection: Connection, now: float) -> bool:
    return connection.execute(select(deliveries.c.num).where(deliveries.c.next_try <= now).limit(1)).first() is not None


def claim(connection: Connection, now: float, lease_seconds: float) -> tuple[Delivery, Webhook] | None:
    """The delivery that is due longest, which nobody else gets for `lease_seconds`."""
    due = select(deliveries.c.num).where(deliveries.c.next_try <= now).order_by(deliveries.c.next_try).limit(1).scalar_subquery()
    taken = update(deliveries).where(deliveries.c.num == due).values(next_try=now + lease_seconds, tries=deliveries.c.tries + 1)
    row = connection.execute(taken.returning(deliveries)).first()
    if row is None:
        return None
    delivery = delivery_from_row(row)
    return delivery, from_row(connection.execute(select(webhooks).where(webhooks.c.id == delivery.webhook_id)).one())


def note(connection: Connection, delivery: Delivery, **values: Any) -> None:
    """What came of a try: next_try, delivered, status_code, error."""
    connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(**values))


def prune(connection: Connection, before: float) -> int:
    """Forgets deliveries that were told before then and are tried no more; how many."""
    ended = deliveries.c.next_try.is_(None) & (deliveries.c.created < before)
    return connection.execute(delete(deliveries).where(ended)).rowcount


def list_deliveries(
    connection: Connection, webhook: Webhook, *, after: str | None, limit: int
) -> tuple[list[Delivery], bool]:
    """Newest first."""
    found = page(connection, deliveries, deliveries.c.webhook_id == webhook.id, after=after, limit=limit)
    return [delivery_from_row(row) for row in found.rows], found.has_more
