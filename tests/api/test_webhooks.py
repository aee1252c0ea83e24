"""Webhook endpoints through the official client's own methods, and a batch that tells of its end."""

import io
import json
import time

import openai
import pytest
from jobs.test_webhooks import Receiver

from tunesmith.settings import Settings

from .conftest import serve


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), threads=1, lazy=True, allow_private_webhooks=True)
    with serve(settings) as running:
        yield running


@pytest.fixture(scope="module")
def receiver():
    made = Receiver()
    yield made
    made.close()


def create(client, url, *types):
    return client.webhooks.create(name="mine", url=url, event_types=list(types) or ["batch.failed"])


def test_an_endpoint_is_made_shown_changed_and_removed_by_the_clients_own_methods(client):
    made = create(client, "https://example.com/hook")
    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"
    shown = client.webhooks.retrieve(made.id)
    assert (shown.url, shown.event_types) == ("https://example.com/hook", ["batch.failed"])
    assert "signing_secret" not in shown.to_dict()
    assert client.webhooks.update(made.id, name="yours", event_types=["batch.completed"]).name == "yours"
    assert [(each.id, each.event_types) for each in client.webhooks.list()] == [(made.id, ["batch.completed"])]
    assert client.webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)
    assert "batch.completed" in client.webhooks.event_types.list().data


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"url": "https://user@example.com/"}, "url"),
        ({"url": "nonsense"}, "url"),
        ({"event_types": ["video.completed"]}, "event_types.0"),
        ({"event_types": []}, "event_types"),
        ({"name": ""}, "name"),
        ({"extra_body": {"secret": "x"}}, "secret"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, wrong, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.webhooks.create(**{"name": "n", "url": "https://example.com/", "event_types": ["batch.failed"], **wrong})
    assert caught.value.param == param


def test_a_test_delivery_is_signed_and_says_what_the_receiver_answered(client, receiver):
    made = create(client, receiver.url)
    told = client.webhooks.test(made.id, event_type="eval.run.succeeded")
    assert (told.status_code, told.success, told.webhook_endpoint_id) == (200, True, made.id)
    headers, body = receiver.got.pop()
    assert client.webhooks.unwrap(body, headers, secret=made.signing_secret).type == "eval.run.succeeded"
    client.webhooks.update(made.id, url="http://127.0.0.1:9/")
    with pytest.raises(openai.BadRequestError, match="does not answer"):
        client.webhooks.test(made.id, event_type="batch.failed")
    client.webhooks.delete(made.id)


def test_a_rotated_secret_overlaps_with_the_old_one_when_asked_to(client, receiver):
    made = create(client, receiver.url)
    both = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    client.webhooks.test(made.id, event_type="batch.failed")
    headers, body = receiver.got.pop()
    for secret in (made.signing_secret, both.signing_secret):
        assert client.webhooks.unwrap(body, headers, secret=secret).type == "batch.failed"
    only = client.webhooks.rotate_secret(made.id)
    client.webhooks.test(made.id, event_type="batch.failed")
    headers, body = receiver.got.pop()
    assert client.webhooks.unwrap(body, headers, secret=only.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret=both.signing_secret)
    client.webhooks.delete(made.id)


def test_a_batch_that_ends_is_told(client, receiver):
    made = create(client, receiver.url, "batch.failed")
    file = client.files.create(file=("input.jsonl", io.BytesIO(b"not json")), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    while not receiver.got:
        time.sleep(0.02)
    headers, body = receiver.got.pop()
    event = client.webhooks.unwrap(body, headers, secret=made.signing_secret)
    assert (event.type, event.data.id) == ("batch.failed", batch.id)
    while (listed := client.get(f"/webhook_endpoints/{made.id}/deliveries", cast_to=object)["data"])[0]["status"] == "pending":
        time.sleep(0.02)
    assert [(each["status"], each["event_type"], json.loads(each["event"])["data"]["id"]) for each in listed] == [
        ("delivered", "batch.failed", batch.id)
    ]
    client.webhooks.delete(made.id)


def test_another_projects_endpoint_is_not_there(served, client):
    made = create(client, "https://example.com/hook")
    project = client.post("/projects", body={"name": "webhooks-elsewhere"}, cast_to=object)
    key = client.post("/keys", body={"name": "x", "project": project["id"]}, cast_to=object)["key"]
    foreign = served.client(api_key=key).webhooks
    for ask in (foreign.retrieve, foreign.update, foreign.delete, foreign.rotate_secret):
        with pytest.raises(openai.NotFoundError):
            ask(made.id)
    assert list(foreign.list()) == []
    client.webhooks.delete(made.id)
