"""A batch lives through the deaths of its server: what has an answer is not asked again, and its end is told by a webhook."""

import io
import json
import signal
import time

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
