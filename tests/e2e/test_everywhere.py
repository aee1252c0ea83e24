"""On PostgreSQL and S3, with a second engine for embeddings and a judge, batches of every kind end as they do on one disk."""

import io
import json
import time

import pytest
from e2e.conftest import start, stop

pytestmark = pytest.mark.slow

TINY = "tunesmith/tiny"
BODIES = {
    "/v1/chat/completions": {"model": TINY, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4},
    "/v1/embeddings": {"model": TINY, "input": ["river", "piano"], "encoding_format": "float"},
    "/v1/moderations": {"input": "I like rivers."},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory, postgresql, s3_server, small_base):
    """Of a server that keeps no row and no file on its own disk; its engine for embeddings is another base, of width 64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_DATABASE_URL", postgresql.new_url())
        patch.setenv("TUNESMITH_STORE", "s3://bucket/everywhere")
        data = tmp_path_factory.mktemp("everywhere") / "data"
        flags = ("--embedding-model", small_base.folder, "--moderation-model", TINY, "--base", TINY, "--base", small_base.folder)
        server = start(data, "--threads", "1", *map(str, flags))
        yield server.client(max_retries=20)
        stop(server)


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_batch_comes_to_its_end(client, endpoint):
    lines = [{"custom_id": f"c{n}", "method": "POST", "url": endpoint, "body": BODIES[endpoint]} for n in range(3)]
    text = "\n".join(map(json.dumps, lines))
    file = client.files.create(file=("input.jsonl", io.BytesIO(text.encode())), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    while batch.status not in {"completed", "failed", "expired", "cancelled"}:
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch.errors
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
    rows = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [(row["custom_id"], row["response"]["status_code"]) for row in rows] == [(f"c{n}", 200) for n in range(3)]
    answer = rows[0]["response"]["body"]
    if endpoint == "/v1/embeddings":
        assert [len(each["embedding"]) for each in answer["data"]] == [64, 64], "of the second engine"
    if endpoint == "/v1/moderations":
        assert {type(each["flagged"]) for each in answer["results"]} == {bool}


def test_the_embedding_engine_embeds_and_the_other_talks(client, small_base):
    assert len(client.embeddings.create(model=TINY, input="river", encoding_format="float").data[0].embedding) == 64
    assert client.chat.completions.create(**BODIES["/v1/chat/completions"]).model == TINY
