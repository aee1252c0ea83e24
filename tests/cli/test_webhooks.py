"""Webhooks are made and looked after beside a server; the secret is shown once, and what is sent is signed with it."""

import json

import openai
import pytest
from jobs.test_webhooks import Receiver, cancelled
from typer.testing import CliRunner

from tunesmith.cli.webhooks import app
from tunesmith.db.migrate import open_database
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.words import EVENTS
from tunesmith.paths import DataDir
from tunesmith.schemas.webhooks import EVENT_TYPES

runner = CliRunner()


@pytest.fixture
def call(tmp_path):
    dirs = DataDir(tmp_path / "data").make()
    open_database(dirs.database).close()

    def run(verb, *arguments):
        words = [verb, *arguments, "--data-dir", str(dirs.root), "--json"]
        return json.loads(runner.invoke(app, words, catch_exceptions=False).stdout)

    run.dirs = dirs
    return run


def test_a_webhook_is_made_shown_changed_rotated_and_deleted(call):
    made = call("create", "mine", "https://example.com/hook", "--event", "batch.completed")
    assert made["event_types"] == ["batch.completed"]
    shown = call("show", made["id"])
    assert shown == {name: value for name, value in made.items() if name != "signing_secret"}
    assert call("list") == [shown]
    assert call("change", made["id"], "--name", "yours", "--event", "batch.failed")["event_types"] == ["batch.failed"]
    assert call("rotate", made["id"], "--keep-old")["signing_secret"] != made["signing_secret"]
    assert call("delete", made["id"])["deleted"]
    assert call("list") == []
    with pytest.raises(NotFound):
        call("show", made["id"])
    assert call("create", "all", "https://example.com/")["event_types"] == list(EVENT_TYPES)


def test_a_wrong_event_and_a_private_address_are_refused(call):
    with pytest.raises(InvalidRequest, match="no event"):
        call("create", "mine", "https://example.com/", "--event", "batch.done")
    with pytest.raises(InvalidRequest, match="https"):
        call("create", "mine", "http://127.0.0.1/")
    with pytest.raises(InvalidRequest, match="private"):
        call("change", call("create", "mine", "https://example.com/")["id"], "--url", "https://127.0.0.1/")


def test_a_test_is_signed_and_deliveries_are_listed(call):
    receiver = Receiver()
    made = call("create", "mine", receiver.url, "--allow-private")
    assert call("test", made["id"], "batch.failed", "--allow-private")["status_code"] == 200
    headers, body = receiver.got.pop()
    with openai.OpenAI(api_key="x", webhook_secret=made["signing_secret"]) as client:
        assert client.webhooks.unwrap(body, headers).type == "batch.failed"
    receiver.close()
    database = open_database(call.dirs.database)
    cancelled(Queue(database), "ftjob-1")
    database.close()
    [delivery] = call("deliveries", made["id"])
    assert (delivery["status"], delivery["num_tries"], delivery["event_type"]) == ("pending", 0, "fine_tuning.job.cancelled")


def test_every_end_of_every_kind_of_job_has_an_event_that_can_be_asked_for():
    assert {name for names in EVENTS.values() for name in names.values()} == set(EVENT_TYPES)
