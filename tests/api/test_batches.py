"""Batches through the official client: order, statuses, files, errors with lines, cancellation, projects."""

import io
import json
import time

import openai
import pytest

from tunesmith.db import keys

URL = "/v1/chat/completions"


@pytest.fixture(scope="module")
def served(talking):
    return talking


def chat(number, **body):
    asked = {"model": "tunesmith/tiny", "messages": [{"role": "user", "content": f"Say {number}"}], "max_tokens": 4, **body}
    return {"custom_id": f"request-{number}", "method": "POST", "url": URL, "body": asked}


def upload(client, *lines, purpose="batch"):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return client.files.create(file=("input.jsonl", io.BytesIO(text.encode())), purpose=purpose).id


def order(client, *lines, endpoint=URL, **more):
    return client.batches.create(input_file_id=upload(client, *lines), endpoint=endpoint, completion_window="24h", **more)


def ended(client, batch):
    while batch.status not in {"completed", "failed", "expired", "cancelled"}:
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def rows(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_answers_in_the_order_of_its_input_and_tells_counts_usage_and_times(client):
    asked = [chat(1), chat(2, model="gpt-4o-mini"), chat(3, temperature=-5), chat(4, model="nobody/knows"), chat(5)]
    batch = order(client, *asked, metadata={"night": "one"}, output_expires_after={"anchor": "created_at", "seconds": 3600})
    assert (batch.status, batch.metadata, batch.expires_at) == ("validating", {"night": "one"}, batch.created_at + 24 * 3600)
    batch = ended(client, batch)
    assert (batch.status, batch.request_counts.to_dict()) == ("completed", {"total": 5, "completed": 3, "failed": 2})
    good, bad = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert [row["custom_id"] for row in good] == ["request-1", "request-2", "request-5"]
    assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in good)
    assert all(row["response"]["request_id"].startswith("req_") and row["id"].startswith("batch_req_") for row in good)
    assert good[1]["response"]["body"]["model"] == "gpt-4o-mini"
    assert [(row["custom_id"], row["response"]["status_code"]) for row in bad] == [("request-3", 400), ("request-4", 404)]
    assert bad[1]["response"]["body"]["error"]["code"] == "model_not_found"
    told = [row["response"]["body"]["usage"] for row in good]
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in told)
    assert batch.usage.total_tokens == sum(usage["total_tokens"] for usage in told)
    times = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert times == sorted(times)
    file = client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.expires_at) == ("batch_output", file.created_at + 3600)
    assert batch.id in [each.id for each in client.batches.list(limit=100)]


@pytest.mark.parametrize(
    ("endpoint", "body", "made"),
    [
        ("/v1/embeddings", {"input": "Good day"}, lambda answer: answer["data"][0]["embedding"]),
        ("/v1/completions", {"prompt": "Good day", "max_tokens": 2}, lambda answer: answer["choices"]),
        ("/v1/responses", {"input": "Good day", "max_output_tokens": 16, "store": False}, lambda answer: answer["output"]),
    ],
)
def test_other_endpoints_are_batched_too(client, endpoint, body, made):
    asked = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "tunesmith/tiny", **body}}
    batch = ended(client, order(client, asked, endpoint=endpoint))
    assert (batch.status, batch.model, batch.error_file_id) == ("completed", "tunesmith/tiny", None)
    assert made(rows(client, batch.output_file_id)[0]["response"]["body"])
    assert batch.usage.input_tokens > 0


def test_every_line_that_is_wrong_is_told_and_nothing_is_asked(client):
    twice = chat(1)
    lines = [
        twice, "{not json", '["a list"]', twice, chat(5) | {"method": "GET"}, chat(6) | {"url": "/v1/embeddings"},
        {"method": "POST", "url": URL, "body": {"model": "x"}}, chat(8) | {"body": {"messages": []}}, chat(9) | {"more": 1},
        chat(10, stream=True), {"custom_id": "", "method": "POST", "url": URL, "body": []},
    ]  # fmt: skip
    batch = ended(client, order(client, *lines))
    assert (batch.status, batch.output_file_id, batch.request_counts.total) == ("failed", None, 0)
    assert batch.failed_at >= batch.created_at
    told = [(error.line, error.code, error.param) for error in batch.errors.data]
    assert told == [
        (2, "invalid_json_line", None),
        (3, "invalid_json_line", None),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "invalid_method", "method"),
        (6, "invalid_url", "url"),
        (7, "missing_required_parameter", "custom_id"),
        (8, "missing_required_parameter", "body.model"),
        (9, "unknown_parameter", "more"),
        (10, "invalid_value", "body.stream"),
        (11, "invalid_custom_id", "custom_id"),
        (11, "invalid_body", "body"),
    ]


def test_an_empty_file_fails_and_at_most_a_hundred_problems_are_told(client):
    assert [error.code for error in ended(client, order(client, "\n")).errors.data] == ["empty_file"]
    assert len(ended(client, order(client, *["no"] * 150)).errors.data) == 100


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"completion_window": "1h"}, "completion_window"),
        ({"endpoint": "/v1/images/generations"}, "endpoint"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"metadata": {"k": "v" * 600}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after.seconds"),
        ({"extra_body": {"priority": "high"}}, "priority"),
    ],
)
def test_an_order_that_cannot_be_kept_is_refused_by_name(client, wrong, param):
    file_id = upload(client, chat(1))
    good = {"input_file_id": file_id, "endpoint": URL, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**good | wrong)
    assert caught.value.param == param


def test_a_file_for_something_else_is_refused(client):
    file_id = upload(client, chat(1), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="wrong_purpose|purpose"):
        client.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h")


def test_a_cancelled_batch_keeps_what_it_has(client):
    batch = order(client, *(chat(number, max_tokens=64) for number in range(400)))
    while not (batch := client.batches.retrieve(batch.id)).request_counts.completed:
        time.sleep(0.05)
    batch = client.batches.cancel(batch.id)
    assert batch.status == "cancelling"
    batch = ended(client, batch)
    assert (batch.status, batch.cancelled_at >= batch.cancelling_at) == ("cancelled", True)
    assert 0 < batch.request_counts.completed < 400
    assert len(rows(client, batch.output_file_id)) == batch.request_counts.completed
    with pytest.raises(openai.BadRequestError, match="already"):
        client.batches.cancel(batch.id)


def test_another_projects_batch_is_not_there(served, client):
    batch = order(client, chat(1))
    project = client.post("/projects", body={"name": "theirs"}, cast_to=object)
    made = client.post("/keys", body={"name": "x", "project": project["id"]}, cast_to=object)
    foreign = served.client(api_key=made["key"])
    for ask in (foreign.batches.retrieve, foreign.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(batch.id)
    assert batch.id not in [each.id for each in foreign.batches.list()]
    with pytest.raises(openai.BadRequestError, match="no file"):
        foreign.batches.create(input_file_id=batch.input_file_id, endpoint=URL, completion_window="24h")


def test_a_batchs_key_ends_with_its_attempt_and_may_only_ask_at_the_expense_of_who_ordered(served, client):
    made = client.post("/keys", cast_to=object, body={
        "name": "thrifty", "models": ["tunesmith/*"], "limits": {"tokens_per_day": 300},
    })  # fmt: skip
    thrifty = served.client(api_key=made["key"])
    lines = [chat(number, max_tokens=20) for number in range(30)]
    batch = ended(client, order(thrifty, *lines))
    with served.desk.database.read() as connection:
        mine = [key for key in keys.list_all(connection) if key.name == f"job {batch.id}"]
    assert [(key.scopes, key.models, key.payer, key.revoked is not None) for key in mine] == [
        (["model.request"], ["tunesmith/*"], made["id"], True)
    ]
    refused = [row["response"]["body"]["error"]["code"] for row in rows(client, batch.error_file_id)]
    assert 0 < batch.request_counts.completed < 30
    assert set(refused) == {"insufficient_quota"}
    again = ended(client, order(thrifty, chat(1, max_tokens=200)))
    assert again.request_counts.failed == 1, "a second batch has no purse of its own"
