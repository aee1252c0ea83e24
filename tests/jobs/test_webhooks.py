"""Deliveries: signed, tried again, given up, and lost by no crash. The receiver is a real one on loopback."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import pytest
from orders import tuning_job
from sqlalchemy import select

from tunesmith.db import tables, webhooks
from tunesmith.db.migrate import open_database
from tunesmith.db.webhooks import Webhook
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.webhooks import LEASE_SECONDS, Courier
from tunesmith.jobs.words import event_type


class Receiver:
    """Answers `status` and keeps (headers, body) of what came."""

    def __init__(self):
        self.status, self.got = 200, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                outer.got.append((dict(self.headers), body))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def queue(where):
    database = open_database(*where)
    yield Queue(database)
    database.close()


def subscribe(queue, url, *types, project="proj_default"):
    webhook = Webhook(f"we_{url[-4:]}{project}", project, "mine", url, list(types), 1, 1, webhooks.new_salt())
    with queue.database.write() as connection:
        webhooks.add(connection, webhook)
        return webhook, webhooks.signing_secrets(connection, webhook)[0]


def cancelled(queue, name, **fields):
    queue.submit(tuning_job(name, **fields))
    queue.cancel(name)


def rows(queue):
    with queue.database.read() as connection:
        return [webhooks.delivery_from_row(row) for row in connection.execute(select(tables.deliveries))]


def test_a_job_that_ends_is_told_to_those_who_want_it_and_the_openai_client_believes_it(queue, receiver):
    _, secret = subscribe(queue, receiver.url, "fine_tuning.job.cancelled")
    subscribe(queue, receiver.url + "2", "fine_tuning.job.succeeded")
    subscribe(queue, receiver.url + "3", "fine_tuning.job.cancelled", project="proj_theirs")
    cancelled(queue, "ftjob-1")
    courier = Courier(queue.database, allow_private=True)
    assert courier.deliver_one()
    assert not courier.deliver_one()
    [(headers, body)] = receiver.got
    with openai.OpenAI(api_key="x", webhook_secret=secret) as client:
        event = client.webhooks.unwrap(body, headers)
        assert (event.type, event.data.id, event.object) == ("fine_tuning.job.cancelled", "ftjob-1", "event")
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body + " ", headers)
    [delivery] = rows(queue)
    assert (delivery.tries, delivery.status_code, delivery.next_try) == (1, 200, None)
    assert delivery.delivered is not None


def test_a_transaction_that_fails_tells_nobody(queue, receiver, monkeypatch):
    subscribe(queue, receiver.url, "fine_tuning.job.cancelled")
    queue.submit(tuning_job("ftjob-1"))
    tell = webhooks.tell

    def told_and_broken(*told):
        tell(*told)
        raise RuntimeError

    monkeypatch.setattr(webhooks, "tell", told_and_broken)
    with pytest.raises(RuntimeError):
        queue.cancel("ftjob-1")
    assert rows(queue) == []


def test_a_receiver_that_refuses_is_tried_again_later_and_later_and_then_given_up(queue, receiver):
    subscribe(queue, receiver.url, "fine_tuning.job.cancelled")
    cancelled(queue, "ftjob-1")
    clock, receiver.status = Clock(), 500
    courier = Courier(queue.database, allow_private=True, retry_seconds=(5.0, 60.0), clock=clock)
    for wait in (5.0, 60.0):
        assert courier.deliver_one()
        assert not courier.deliver_one()
        assert rows(queue)[0].next_try == clock.now + wait
        clock.now += wait
    assert courier.deliver_one()
    [delivery] = rows(queue)
    assert (delivery.tries, delivery.next_try, delivery.delivered) == (3, None, None)
    assert delivery.error == "The receiver answered 500."
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1, "a receiver can tell a repetition"


def test_what_ended_long_ago_is_forgotten_and_what_is_still_tried_is_not(queue, receiver):
    def prune(before):
        with queue.database.write() as connection:
            return webhooks.prune(connection, before)

    subscribe(queue, receiver.url, "fine_tuning.job.cancelled")
    cancelled(queue, "ftjob-1")
    later = rows(queue)[0].created + 1
    assert prune(later) == 0, "it is still to be sent"
    assert Courier(queue.database, allow_private=True).deliver_one()
    assert (prune(later - 1), prune(later)) == (0, 1)
    assert rows(queue) == []


def test_what_a_dead_server_took_with_it_is_sent_by_the_next(queue, receiver):
    subscribe(queue, receiver.url, "fine_tuning.job.cancelled")
    cancelled(queue, "ftjob-1")
    clock = Clock()
    with queue.database.write() as connection:
        assert webhooks.claim(connection, clock(), LEASE_SECONDS) is not None  # and then it dies
    courier = Courier(queue.database, allow_private=True, clock=clock)
    assert not courier.deliver_one()
    clock.now += LEASE_SECONDS
    assert courier.deliver_one()
    assert len(receiver.got) == 1


def test_nothing_is_sent_to_a_private_address_unless_the_owner_allows_it(queue, receiver):
    subscribe(queue, receiver.url.replace("http:", "https:"), "fine_tuning.job.cancelled")
    cancelled(queue, "ftjob-1")
    assert Courier(queue.database, allow_private=False).deliver_one()
    assert receiver.got == []
    assert rows(queue)[0].error == "url names a private address."


def test_deliveries_go_out_while_nobody_looks(queue, receiver):
    subscribe(queue, receiver.url, "fine_tuning.job.cancelled")
    courier = Courier(queue.database, allow_private=True)
    courier.start()
    for number in range(5):
        cancelled(queue, f"ftjob-{number}")
    while len(receiver.got) < 5:
        pass
    courier.stop()
    assert len(receiver.got) == 5


@pytest.mark.parametrize(
    ("kind", "status", "result", "event"),
    [
        ("fine_tuning", "succeeded", None, "fine_tuning.job.succeeded"),
        ("fine_tuning", "failed", None, "fine_tuning.job.failed"),
        ("batch", "succeeded", {"outcome": "completed"}, "batch.completed"),
        ("batch", "failed", {"outcome": "expired"}, "batch.expired"),
        ("batch", "failed", None, "batch.failed"),
        ("batch", "cancelled", {"outcome": "cancelled"}, "batch.cancelled"),
        ("eval_run", "failed", None, "eval.run.failed"),
        ("eval_run", "cancelled", None, "eval.run.canceled"),
    ],
)
def test_an_end_has_openais_name(kind, status, result, event):
    assert event_type(tuning_job("job", kind=kind, status=status, result=result)) == event
