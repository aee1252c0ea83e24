"""A batch: a file of requests in, a file of answers out, in the background."""

import io
import json

from common import MODEL, client, until

ai = client()
lines = [
    {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": MODEL, "messages": [{"role": "user", "content": f"Say {number}."}], "max_tokens": 4, "temperature": 0,
    }}
    for number in range(20)
]
lines[7]["body"]["temperature"] = 9
data = io.BytesIO("\n".join(json.dumps(line) for line in lines).encode())
data.name = "requests.jsonl"
file = ai.files.create(file=data, purpose="batch")
batch = ai.batches.create(
    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"night": "one"}
)
assert batch.status in {"validating", "in_progress"}, batch.status
batch = until(lambda: ai.batches.retrieve(batch.id), lambda batch: batch.status in {"completed", "failed", "expired"})
assert batch.status == "completed", batch.errors
assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 19, 1)
answers = [json.loads(line) for line in ai.files.content(batch.output_file_id).text.splitlines()]
assert [answer["custom_id"] for answer in answers] == [f"r{number}" for number in range(20) if number != 7]
assert all(answer["response"]["status_code"] == 200 for answer in answers)
assert all(answer["response"]["body"]["choices"][0]["message"]["role"] == "assistant" for answer in answers)
errors = [json.loads(line) for line in ai.files.content(batch.error_file_id).text.splitlines()]
assert [error["custom_id"] for error in errors] == ["r7"]
assert batch.id in [each.id for each in ai.batches.list(limit=2)]
print("done")
