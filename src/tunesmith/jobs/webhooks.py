"""The courier: takes due deliveries from the outbox and sends them, signed as OpenAI signs, until each was taken or is given up.

At least once: a delivery is noted after it was sent, so that a crash between the two sends it again (its `webhook-id` stays).
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable

import structlog

from tunesmith import fetch
from tunesmith.db import webhooks
from tunesmith.db.session import Database
from tunesmith.db.webhooks import Delivery, Webhook
from tunesmith.errors import InvalidRequest
from tunesmith.jobs.loops import Loops

NUM_THREADS = 2
"""A receiver that is slow holds one of them."""
LEASE_SECONDS = 60.0
"""After which another server sends what this one took and did not finish."""
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0, 8 * 3600.0, 12 * 3600.0, 24 * 3600.0, 24 * 3600.0)
"""Between two tries; three days in all, as OpenAI has it."""

log = structlog.get_logger("tunesmith.webhooks")


def sign(secret: str, webhook_id: str, timestamp: int, body: str) -> str:
    """`v1,` and base64 of HMAC-SHA256 over id, time and body, as standardwebhooks.com has it and the openai client checks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.digest(key, f"{webhook_id}.{timestamp}.{body}".encode(), hashlib.sha256)
    return f"v1,{base64.b64encode(made).decode()}"


def send(url: str, body: str, webhook_id: str, secrets: list[str], *, allow_private: bool) -> int:
    """The status that the receiver answered. Raises InvalidRequest when it may not be asked, or does not answer."""
    now = int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(sign(secret, webhook_id, now, body) for secret in secrets),
    }
    return fetch.post(url, body.encode(), headers, allow_private=allow_private)


class Courier:
    """`start` returns at once, `stop` when what is under way is sent."""

    def __init__(
        self, database: Database, *, allow_private: bool, retry_seconds: tuple[float, ...] = RETRY_SECONDS,
        clock: Callable[[], float] = time.time,
    ):  # fmt: skip
        self._database = database
        self._allow_private = allow_private
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._loops = Loops([(f"courier-{number}", self.deliver_one) for number in range(NUM_THREADS)])
        self.start, self.stop = self._loops.start, self._loops.stop

    def deliver_one(self) -> bool:
        """One try of what is due longest; False when nothing is."""
        with self._database.read() as connection:
            if not webhooks.is_due(connection, self._clock()):
                return False
        with self._database.write() as connection:
            claimed = webhooks.claim(connection, self._clock(), LEASE_SECONDS)
            if claimed is None:
                return False
            delivery, webhook = claimed
            secrets = webhooks.signing_secrets(connection, webhook)
        status, error = self._try(delivery, webhook, secrets)
        taken = status is not None and 200 <= status < 300
        with self._database.write() as connection:
            webhooks.note(
                connection, delivery, status_code=status, error=error, next_try=None if taken else self._next_try(delivery),
                delivered=int(self._clock()) if taken else None,
            )  # fmt: skip
        return True

    def _try(self, delivery: Delivery, webhook: Webhook, secrets: list[str]) -> tuple[int | None, str | None]:
        """The receiver's status, and what was wrong."""
        try:
            status = send(webhook.url, delivery.body, delivery.id, secrets, allow_private=self._allow_private)
        except InvalidRequest as error:
            log.info("a webhook was not delivered", webhook=webhook.id, delivery=delivery.id, reason=error.message)
            return None, error.message
        return status, None if 200 <= status < 300 else f"The receiver answered {status}."

    def _next_try(self, delivery: Delivery) -> float | None:
        """None when it is given up; `tries` counts the one that was just made."""
        left = self._retry_seconds[delivery.tries - 1 :]
        return self._clock() + left[0] if left else None
