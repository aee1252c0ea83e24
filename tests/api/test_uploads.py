"""Uploads in parts: an accepted part is never lost, the order is the client's, and what does not add up is refused."""

import hashlib
import http.client
import random
import signal
import subprocess
import sys

import openai
import pytest
from sqlalchemy import update

from tunesmith.api.sweep import sweep
from tunesmith.db import keys, projects
from tunesmith.db.tables import uploads

DATA = random.Random(4).randbytes(1_000_003)
SIZE = 250_000
PARTS = [DATA[start : start + SIZE] for start in range(0, len(DATA), SIZE)]


def begin(client, num_bytes=None, **more):
    size = num_bytes or len(DATA)
    return client.uploads.create(bytes=size, filename="big.jsonl", mime_type="text/jsonl", purpose="fine-tune", **more)


def add(client, upload, data):
    return client.uploads.parts.create(upload.id, data=data).id


@pytest.fixture(scope="module")
def served(served_everywhere):
    return served_everywhere


def blobs(served):
    assert not [path for path in served.desk.store.root.iterdir() if path.is_file()], "something is half done"
    return set(served.desk.store.list_old(-60))


def test_the_clients_own_helper_uploads_a_file_in_parts(client, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(DATA)
    done = client.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=SIZE, md5=hashlib.md5(DATA).hexdigest()
    )
    assert (done.status, done.file.filename, done.file.bytes) == ("completed", "rows.jsonl", len(DATA))
    assert client.files.content(done.file.id).read() == DATA
    client.files.delete(done.file.id)


def test_the_order_of_the_parts_is_what_complete_says_and_the_parts_are_gone_after(client, served):
    before = blobs(served)
    upload = begin(client, expires_after={"anchor": "created_at", "seconds": 7200})
    assert (upload.status, upload.expires_at - upload.created_at, upload.bytes) == ("pending", 3600, len(DATA))
    ids = [add(client, upload, part) for part in reversed(PARTS)][::-1]
    done = client.uploads.complete(upload.id, part_ids=ids)
    assert client.files.content(done.file.id).read() == DATA
    assert done.file.expires_at == done.file.created_at + 7200
    assert blobs(served) - before == {hashlib.sha256(DATA).hexdigest()}
    again = client.uploads.complete(upload.id, part_ids=ids)
    assert again == done, "the same order again, because the answer was lost"
    with pytest.raises(openai.BadRequestError, match="is completed"):
        client.uploads.complete(upload.id, part_ids=ids[:1])
    with pytest.raises(openai.BadRequestError, match="is completed"):
        add(client, upload, b"more")
    client.files.delete(done.file.id)


def test_what_does_not_add_up_is_refused_and_can_be_mended(client, served):
    upload = begin(client, 6)
    first, second = add(client, upload, b"abc"), add(client, upload, b"def")
    with pytest.raises(openai.BadRequestError, match="more than the 6 bytes"):
        add(client, upload, b"g")
    for ids, why in (([first], "have 3 bytes"), ([first, first], "named twice"), ([first, "part-x"], "no part 'part-x'")):
        with pytest.raises(openai.BadRequestError, match=why) as caught:
            client.uploads.complete(upload.id, part_ids=ids)
        assert caught.value.param == "part_ids"
    with pytest.raises(openai.BadRequestError, match="have the md5") as caught:
        client.uploads.complete(upload.id, part_ids=[first, second], md5="0" * 32)
    assert caught.value.param == "md5"
    assert hashlib.sha256(b"abcdef").hexdigest() not in blobs(served)
    done = client.uploads.complete(upload.id, part_ids=[first, second], md5=hashlib.md5(b"abcdef").hexdigest().upper())
    assert client.files.content(done.file.id).read() == b"abcdef"


def test_a_cancelled_upload_keeps_nothing(client, served):
    before = blobs(served)
    upload = begin(client)
    add(client, upload, PARTS[0])
    assert blobs(served) != before
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert blobs(served) == before
    for call in (lambda: add(client, upload, b"x"), lambda: client.uploads.cancel(upload.id)):
        with pytest.raises(openai.BadRequestError, match="is cancelled"):
            call()


def test_an_upload_that_waits_for_an_hour_is_over(client, served):
    before = blobs(served)
    upload = begin(client)
    part = add(client, upload, PARTS[0])
    with served.desk.database.write() as connection:
        connection.execute(update(uploads).where(uploads.c.id == upload.id).values(expires=1))
    for call in (lambda: add(client, upload, b"x"), lambda: client.uploads.complete(upload.id, part_ids=[part])):
        with pytest.raises(openai.BadRequestError, match="is expired"):
            call()
    sweep(served.desk.database, served.desk.store)
    assert blobs(served) == before


def test_an_upload_of_another_project_is_not_there(client, served):
    with served.desk.database.write() as connection:
        other = projects.create(connection, "other").id
        _, text = keys.create(connection, "foreign", project=other)
    foreign, upload = served.client(api_key=text), begin(client)
    for call in (lambda: add(foreign, upload, b"x"), lambda: foreign.uploads.cancel(upload.id),
                 lambda: foreign.uploads.complete(upload.id, part_ids=["x"])):  # fmt: skip
        with pytest.raises(openai.NotFoundError, match="No such Upload"):
            call()


@pytest.mark.parametrize(
    ("order", "param"),
    [({"bytes": 8 * 1024**3 + 1}, "bytes"), ({"purpose": "batch_output"}, "purpose"), ({"colour": "red"}, "colour"),
     ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds")],
)  # fmt: skip
def test_an_order_that_is_wrong_is_refused_by_name(client, order, param):
    whole = {"bytes": 1, "filename": "a", "mime_type": "text/jsonl", "purpose": "batch", **order}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/uploads", body=whole, cast_to=object)
    assert caught.value.param == param


def form(pieces):
    yield b'--xyz\r\nContent-Disposition: form-data; name="data"; filename="blob"\r\n\r\n'
    yield from pieces
    yield b"\r\n--xyz--\r\n"


def send(served, upload, body):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    headers = {"authorization": f"Bearer {served.key}", "content-type": "multipart/form-data; boundary=xyz"}
    connection.request("POST", f"/v1/uploads/{upload.id}/parts", body, headers, encode_chunked=True)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    return reply.status, text


def test_a_part_without_a_length_is_read_up_to_64_mib_and_not_beyond(client, served):
    mebibyte = bytes(1024 * 1024)
    upload = begin(client, 64 * len(mebibyte))
    assert send(served, upload, form([mebibyte] * 64))[0] == 200
    before = blobs(served)
    status, text = send(served, upload, form([mebibyte] * 64 + [b"x"]))
    assert (status, b'"param":"data"' in text, b"file_too_large" in text) == (400, True, True)
    assert blobs(served) == before
    client.uploads.cancel(upload.id)


class Process:
    """A server in a process of its own, which a test may kill."""

    def __init__(self, folder):
        command = [sys.executable, "-m", "tunesmith", "serve", "--port", "0", "--data-dir", str(folder), "--lazy"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.key = ""
        for line in self._process.stdout:
            if line.startswith("API key"):
                self.key = line.split()[-1]
            if "is ready at" in line:
                self.url = line.split(" at ")[1].split()[0]
                break

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()


@pytest.mark.slow
def test_a_kill_loses_no_part_that_was_accepted(tmp_path):
    server = Process(tmp_path / "data")
    key = server.key
    with openai.OpenAI(base_url=server.url, api_key=key, max_retries=0) as client:
        upload = begin(client)
        ids = [add(client, upload, part) for part in PARTS[:2]]
    kill_in_the_middle_of_a_part(server, upload, key)
    server = Process(tmp_path / "data")
    try:
        with openai.OpenAI(base_url=server.url, api_key=key, max_retries=0) as client:
            ids += [add(client, upload, part) for part in PARTS[2:]]
            done = client.uploads.complete(upload.id, part_ids=ids, md5=hashlib.md5(DATA).hexdigest())
            assert client.files.content(done.file.id).read() == DATA
    finally:
        server.kill()


def kill_in_the_middle_of_a_part(server, upload, key):
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=60)
    connection.putrequest("POST", f"/v1/uploads/{upload.id}/parts")
    connection.putheader("authorization", f"Bearer {key}")
    connection.putheader("content-type", "multipart/form-data; boundary=xyz")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    half = b"".join(form([PARTS[2]]))[:100_000]
    connection.send(b"%x\r\n" % len(half) + half + b"\r\n")
    server.kill()
    connection.close()
