"""A plan tells before a job is ordered what it would do, or everything that would fail it."""

import io
import json

from tunesmith.paths import SUPPORT_DESK

ROWS = (SUPPORT_DESK / "train.jsonl").read_bytes()


def plan(served, **fields):
    body = json.dumps({"model": "tunesmith/tiny"} | fields)
    status, _, answer = served.request("POST", "/v1/plan", body, {"content-type": "application/json"})
    return status, answer


def upload(client, data):
    return client.files.create(file=("rows.jsonl", io.BytesIO(data)), purpose="fine-tune").id


def test_rows_steps_and_the_numbers_that_would_be_chosen_are_told(served, client):
    file, held = upload(client, ROWS), upload(client, b"".join(ROWS.splitlines(keepends=True)[:12]))
    status, told = plan(served, training_file=file, validation_file=held)
    assert (status, told["training_rows"], told["held_out_rows"]) == (200, 320, 12)
    assert told["hyperparameters"] == {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0}
    assert told["steps"] == 3 * 320 / 8
    assert told["estimated_tokens_per_epoch"] == len(ROWS) // 3
    assert [(each["param"], each["rows"], each["bytes"]) for each in told["files"]] == [
        ("training_file", 320, len(ROWS)), ("validation_file", 12, len(b"".join(ROWS.splitlines(keepends=True)[:12]))),
    ]
    assert told["recipe"]["method"]["learning_rate"] > 0


def test_memory_hours_and_dollars_are_told(served, client):
    machine = plan(served, training_file=upload(client, ROWS))[1]["machine"]
    assert machine["peak_bytes"] == max(phase["bytes"] for phase in machine["phases"])
    assert all(sum(phase["parts"].values()) == phase["bytes"] for phase in machine["phases"])
    assert machine["peak_bytes"] > 3_000_000 * 4
    assert {rental["spot"] for rental in machine["rentals"]} == {True, False}
    assert all(rental["usd"] > 0 and rental["hours"] > 0 and rental["source"] for rental in machine["rentals"])
    assert "bf16" in machine["rejected"]["T4"]


def test_what_is_held_out_or_rehearsed_counts(served, client):
    told = plan(served, training_file=upload(client, ROWS), hyperparameters={"n_epochs": 1, "batch_size": 16},
                recipe={"data": {"held_out": 0.1, "rehearsal": 0.5}})[1]
    assert (told["training_rows"], told["held_out_rows"], told["steps"]) == (288, 32, 2 * 288 // 16)


def test_a_file_that_would_fail_the_job_fails_the_plan_with_every_line(served, client):
    status, answer = plan(served, training_file=upload(client, b'{"messages": []}\n' * 12))
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "invalid_training_file", "training_file")
    assert "line 12: The field messages is not a list of messages [missing_messages_list]" in answer["error"]["message"]
    assert list(served.desk.settings.dirs.runs.glob(".plan-*")) == []


def test_what_a_job_refuses_a_plan_refuses_too(served, client):
    file = upload(client, ROWS)
    for wrong, param in (
        ({"method": {"type": "reinforcement"}}, "method.reinforcement.grader"),
        ({"model": "nobody"}, "model"),
        ({"owner": 1}, "owner"),
    ):
        status, answer = plan(served, training_file=file, **wrong)
        assert (status, answer["error"]["param"]) == (400, param)
