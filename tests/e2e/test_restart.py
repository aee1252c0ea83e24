"""What was accepted lives through the deaths of its server: what has an answer is not asked again, and no end is made up."""

import http.client
import io
import json
import signal
import time
import urllib.request

import openai
import pytest
from e2e.conftest import run, start, stop
from jobs.test_webhooks import Receiver

pytestmark = pytest.mark.slow

NUM_REQUESTS = 60
URL = "/v1/chat/completions"


def request(number):
    messages = [{"role": "user", "content": f"Write about the number {number}"}]
    body = {"model": "tunesmith/tiny", "messages": messages, "max_tokens": 96, "temperature": 0, "ignore_eos": True}
    return {"custom_id": f"request-{number}", "method": "POST", "url": URL, "body": body}


def wait_for(client, batch_id, condition):
    while not condition(batch := client.batches.retrieve(batch_id)):
        assert batch.status not in {"failed", "expired", "cancelled"}, batch
        time.sleep(0.02)
    return batch


def test_a_batch_survives_a_kill_and_a_stop_of_the_server_and_asks_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_BATCH_CONCURRENCY", "4")  # so that it is still in the middle when it is looked at
    data, receiver = tmp_path / "data", Receiver()
    flags = ("--threads", "1", "--allow-private-webhooks")
    try:
        server = start(data, *flags)
        client = server.client(max_retries=20)
        endpoint = client.post("/webhook_endpoints", cast_to=object, body={
            "name": "n", "url": receiver.url, "event_types": ["batch.completed"],
        })  # fmt: skip
        text = "\n".join(json.dumps(request(number)) for number in range(NUM_REQUESTS))
        file = client.files.create(file=("input.jsonl", io.BytesIO(text.encode())), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=URL, completion_window="24h")
        folder = data / "runs" / batch.id
        answers = folder / "artifacts" / "answers.jsonl"

        wait_for(client, batch.id, lambda batch: batch.request_counts.completed >= 5)
        server.process.kill()
        server.process.wait()
        stop(server)
        first = answers.read_bytes()

        server = start(data, *flags)
        wait_for(server.client(max_retries=20), batch.id, lambda batch: batch.request_counts.completed > first.count(b"\n") + 5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        stop(server)
        second = answers.read_bytes()

        server = start(data, *flags)
        client = server.client(max_retries=20)
        batch = wait_for(client, batch.id, lambda batch: batch.status == "completed")
        assert batch.request_counts.to_dict() == {"total": NUM_REQUESTS, "completed": NUM_REQUESTS, "failed": 0}
        rows = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
        assert [row["custom_id"] for row in rows] == [f"request-{number}" for number in range(NUM_REQUESTS)]
        assert second.startswith(first[: first.rfind(b"\n") + 1])
        kept = [json.loads(line) for line in second.splitlines()]
        assert [rows[answer["line"] - 1] for answer in kept] == [answer["row"] for answer in kept], "each is asked once"
        assert not answers.exists()
        assert not (folder / "input.jsonl").exists()
        assert 5 <= first.count(b"\n") < second.count(b"\n") < NUM_REQUESTS, "both ends came in the middle"
        while not receiver.got:
            time.sleep(0.02)
        headers, body = receiver.got[-1]
        event = client.webhooks.unwrap(body, headers, secret=endpoint["signing_secret"])
        assert (event.type, event.data.id) == ("batch.completed", batch.id)
        keys = json.loads(run("keys", "list", "--data-dir", data, "--json").stdout)
        mine = [key for key in keys if key["name"] == f"job {batch.id}"]
        assert len(mine) == 3
        assert all(key["revoked_at"] for key in mine), "no attempt left a key behind"
        with pytest.raises(openai.BadRequestError):
            client.batches.cancel(batch.id)
    finally:
        stop(server)
        receiver.close()


NUM_ROWS = 40


def items_of(folder):
    """Attempt -> the rows that it told to be done; a torn last line tells nothing."""
    found = {}
    for path in sorted(folder.glob("attempts/*/events.jsonl")):
        events = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found[int(path.parent.name)] = [event["row"] for event in events if event["type"] == "item"]
    return found


def ask_for_a_stream(server):
    body = {"model": "tunesmith/tiny", "messages": [{"role": "user", "content": "Count."}], "stream": True, "max_tokens": 400}
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    data = json.dumps(body | {"ignore_eos": True}).encode()
    return urllib.request.urlopen(urllib.request.Request(f"{server.url}/chat/completions", data=data, headers=headers))


def test_a_kill_in_the_middle_of_an_eval_run_of_a_stream_and_of_responses_loses_nothing_that_was_accepted(tmp_path):
    data, model = tmp_path / "data", "tunesmith/tiny"
    server = start(data, "--threads", "1")
    try:
        client = server.client(max_retries=20)
        judged = client.evals.create(
            name="numbers",
            data_source_config={"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True},
            testing_criteria=[{
                "type": "string_check", "name": "any", "operation": "ne", "input": "{{ sample.output_text }}", "reference": "-",
            }],
        )  # fmt: skip
        ended = client.responses.create(model=model, input="Say hello.", max_output_tokens=16)
        run = client.evals.runs.create(judged.id, name="killed", data_source={
            "type": "completions", "model": model, "sampling_params": {"temperature": 0, "max_completion_tokens": 64},
            "source": {"type": "file_content", "content": [{"item": {"n": n}} for n in range(NUM_ROWS)]},
            "input_messages": {"type": "template", "template": [{"role": "user", "content": "Tell of {{ item.n }} rivers."}]},
        })  # fmt: skip
        folder = data / "runs" / run.id
        while sum(map(len, items_of(folder).values())) < 3:
            time.sleep(0.02)
        waiting = client.responses.create(model=model, input="Tell of rivers.", background=True, max_output_tokens=64)
        file = client.files.create(file=("rows.jsonl", io.BytesIO(b"x" * 100_000)), purpose="user_data")
        stream = ask_for_a_stream(server)
        assert stream.readline().startswith(b"data: {")
        server.process.kill()
        server.process.wait()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as cut:
            stream.read()
        assert b"[DONE]" not in getattr(cut.value, "partial", b""), "a stream that was cut does not say that it is whole"
        stream.close()
        stop(server)
        first = items_of(folder)
        assert 3 <= len(first[1]) < NUM_ROWS, "it was killed in the middle"

        server = start(data, "--threads", "1")
        client = server.client(max_retries=20)
        assert client.responses.retrieve(ended.id).output_text == ended.output_text
        assert client.files.content(file.id).read() == b"x" * 100_000
        while (run := client.evals.runs.retrieve(run.id, eval_id=judged.id)).status not in {"completed", "failed"}:
            time.sleep(0.05)
        assert (run.status, run.result_counts.total) == ("completed", NUM_ROWS)
        told = items_of(folder)
        assert told[1] == first[1]
        assert sorted(row for rows in told.values() for row in rows) == list(range(NUM_ROWS)), "each is told once"
        items = list(client.evals.runs.output_items.list(run.id, eval_id=judged.id, limit=100))
        assert sorted(item.datasource_item["n"] for item in items) == list(range(NUM_ROWS))
        while (waiting := client.responses.retrieve(waiting.id)).status in {"queued", "in_progress"}:
            time.sleep(0.05)
        assert waiting.status == "completed"
    finally:
        stop(server)
