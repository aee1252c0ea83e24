"""/v1/webhook_endpoints, as the openai client has them (deliveries are ours): create, list, retrieve, update, delete, test.

What is delivered, and when, the courier knows (`jobs/webhooks.py`).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.db import webhooks
from tunesmith.jobs.webhooks import send
from tunesmith.schemas import webhooks as wire
from tunesmith.schemas.common import to_list

router = APIRouter(prefix="/v1", dependencies=[needs("webhooks")])

Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/webhook_event_types")
def list_event_types() -> dict[str, Any]:
    return {"object": "list", "data": list(wire.EVENT_TYPES)}


@router.post("/webhook_endpoints")
def create(body: wire.WebhookCreate, desk: DeskDep, key: KeyDep) -> wire.WebhookWithSecret:
    """The signing secret is shown here, and never again."""
    allow_private = desk.settings.allow_private_webhooks
    webhook = wire.to_webhook(key.project, body.name, body.url, list(body.event_types), allow_private=allow_private)
    with desk.database.write() as connection:
        webhooks.add(connection, webhook)
        return wire.with_secret(webhook, webhooks.signing_secrets(connection, webhook)[0])


@router.get("/webhook_endpoints")
def list_webhooks(desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
    with desk.database.read() as connection:
        found, has_more = webhooks.list_page(connection, key.project, after=after, limit=limit)
        shown = [wire.from_row(each, webhooks.signing_secrets(connection, each)[0]) for each in found]
    return to_list(shown, has_more=has_more)


@router.get("/webhook_endpoints/{webhook_id}")
def retrieve(webhook_id: str, desk: DeskDep, key: KeyDep) -> wire.WebhookEndpoint:
    with desk.database.read() as connection:
        webhook = webhooks.get(connection, webhook_id, key.project)
        return wire.from_row(webhook, webhooks.signing_secrets(connection, webhook)[0])


@router.post("/webhook_endpoints/{webhook_id}")
def update(webhook_id: str, body: wire.WebhookUpdate, desk: DeskDep, key: KeyDep) -> wire.WebhookEndpoint:
    values = body.model_dump(exclude_none=True)
    wire.check(values, allow_private=desk.settings.allow_private_webhooks)
    with desk.database.write() as connection:
        webhook = webhooks.get(connection, webhook_id, key.project)
        webhook = webhooks.change(connection, webhook, **values)
        return wire.from_row(webhook, webhooks.signing_secrets(connection, webhook)[0])


@router.delete("/webhook_endpoints/{webhook_id}")
def delete(webhook_id: str, desk: DeskDep, key: KeyDep) -> wire.WebhookDeleted:
    """What waits to be delivered goes too."""
    with desk.database.write() as connection:
        webhooks.remove(connection, webhooks.get(connection, webhook_id, key.project))
    return wire.WebhookDeleted(id=webhook_id)


@router.post("/webhook_endpoints/{webhook_id}/rotate_secret")
def rotate_secret(webhook_id: str, desk: DeskDep, key: KeyDep, body: wire.RotateSecret | None = None) -> wire.WebhookWithSecret:
    """With overlap, deliveries bear both signatures for a day; a receiver takes either."""
    keeps = body is not None and body.keep_old_secret_active_for_24_hours
    with desk.database.write() as connection:
        webhook = webhooks.get(connection, webhook_id, key.project)
        webhook = webhooks.rotate(connection, webhook, keep_old=keeps)
        return wire.with_secret(webhook, webhooks.signing_secrets(connection, webhook)[0])


@router.post("/webhook_endpoints/{webhook_id}/test")
def test(webhook_id: str, body: wire.WebhookTest, desk: DeskDep, key: KeyDep) -> wire.WebhookTested:
    """Sends an event that did not happen, now and once. Raises InvalidRequest when the receiver does not answer."""
    with desk.database.read() as connection:
        webhook = webhooks.get(connection, webhook_id, key.project)
        signing = webhooks.signing_secrets(connection, webhook)
    event, delivery_id = webhooks.event_body(body.event_type, "test"), webhooks.new_delivery_id()
    status = send(webhook.url, event, delivery_id, signing, allow_private=desk.settings.allow_private_webhooks)
    return wire.WebhookTested(webhook_endpoint_id=webhook.id, event_type=body.event_type, status_code=status)


@router.get("/webhook_endpoints/{webhook_id}/deliveries")
def list_deliveries(
    webhook_id: str, desk: DeskDep, key: KeyDep, after: str | None = None, limit: Limit = 20
) -> dict[str, Any]:
    with desk.database.read() as connection:
        webhook = webhooks.get(connection, webhook_id, key.project)
        found, has_more = webhooks.list_deliveries(connection, webhook, after=after, limit=limit)
    return to_list([wire.delivery_from_row(each) for each in found], has_more=has_more)
