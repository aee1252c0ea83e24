"""Webhook endpoints on the wire, in OpenAI's words; deliveries in ours."""

import secrets
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from tunesmith import fetch
from tunesmith.db.webhooks import Delivery, Webhook, new_salt
from tunesmith.errors import InvalidRequest
from tunesmith.schemas.common import Body, Wire
from tunesmith.types import unix_now

EventType = Literal[
    "fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled",
    "batch.completed", "batch.failed", "batch.expired", "batch.cancelled",
    "eval.run.succeeded", "eval.run.failed", "eval.run.canceled",
]  # fmt: skip
EVENT_TYPES: tuple[str, ...] = get_args(EventType)
Name = Annotated[str, Field(min_length=1, max_length=255)]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=32)]


class WebhookCreate(Body):
    name: Name
    url: str
    event_types: EventTypes


class WebhookUpdate(Body):
    """What is left out stays."""

    name: Name | None = None
    url: str | None = None
    event_types: EventTypes | None = None


class RotateSecret(Body):
    keep_old_secret_active_for_24_hours: bool = False


class WebhookTest(Body):
    event_type: EventType


class WebhookEndpoint(Wire):
    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str


class WebhookWithSecret(WebhookEndpoint):
    """As it is shown once: when it is made, and when its secret is."""

    signing_secret: str


class WebhookDeleted(Wire):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class WebhookTested(Wire):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class WebhookDelivery(Wire):
    """Ours: one event for one endpoint. `status` is pending until it was taken or given up; `event` is what is sent."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    created_at: int
    event_type: str
    status: Literal["pending", "delivered", "failed"]
    num_tries: int
    next_try_at: int | None
    delivered_at: int | None
    status_code: int | None
    error: str | None
    event: str


def to_webhook(project: str, name: str, url: str, event_types: list[str], *, allow_private: bool) -> Webhook:
    """A new one. Raises InvalidRequest."""
    check({"url": url, "event_types": event_types}, allow_private=allow_private)
    now = unix_now()
    return Webhook(f"we_{secrets.token_hex(12)}", project, name, url, event_types, now, now, new_salt())


def check(values: dict[str, Any], *, allow_private: bool) -> None:
    """Raises InvalidRequest for an address that may not be told, and for an event that there is not."""
    if "url" in values:
        fetch.parse(values["url"], allow_private=allow_private)
    for name in values.get("event_types", ()):
        if name not in EVENT_TYPES:
            hint = f"There are: {', '.join(EVENT_TYPES)}."
            raise InvalidRequest(f"There is no event {name!r}.", hint=hint, param="event_types")


def from_row(webhook: Webhook, secret: str) -> WebhookEndpoint:
    return WebhookEndpoint(**_fields(webhook, secret))


def with_secret(webhook: Webhook, secret: str) -> WebhookWithSecret:
    return WebhookWithSecret(**_fields(webhook, secret), signing_secret=secret)


def _fields(webhook: Webhook, secret: str) -> dict[str, Any]:
    return {
        "id": webhook.id, "created_at": webhook.created, "updated_at": webhook.updated, "name": webhook.name, "url": webhook.url,
        "event_types": webhook.event_types, "signing_secret_hint": f"whsec_...{secret[-4:]}",
    }  # fmt: skip


def delivery_from_row(delivery: Delivery) -> WebhookDelivery:
    is_open = delivery.next_try is not None
    return WebhookDelivery(
        id=delivery.id,
        created_at=delivery.created,
        event_type=delivery.type,
        status="pending" if is_open else "failed" if delivery.delivered is None else "delivered",
        num_tries=delivery.tries,
        next_try_at=None if delivery.next_try is None else int(delivery.next_try),
        delivered_at=delivery.delivered,
        status_code=delivery.status_code,
        error=delivery.error,
        event=delivery.body,
    )
