"""Files: what is uploaded comes back byte for byte, or nothing is kept and the reason is said."""

import hashlib
import http.client
import io
import random

import openai
import pytest
from sqlalchemy import update

from tunesmith.api.files import clean_name
from tunesmith.api.sweep import search, sweep
from tunesmith.db import files, keys, projects
from tunesmith.db.tables import files as table

BOUNDARY = "xyz"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name, value, filename=None):
    named = f'; filename="{filename}"' if filename else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"


def expiry(seconds):
    return part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", seconds)


END = f"--{BOUNDARY}--\r\n".encode()
PURPOSE = part("purpose", b"fine-tune")


@pytest.fixture(scope="module")
def served(served_everywhere):
    return served_everywhere


def blobs(served):
    assert not [path for path in served.desk.store.root.iterdir() if path.is_file()], "something is half done"
    return sorted(served.desk.store.list_old(-60))


def test_an_upload_comes_back_byte_for_byte_and_can_be_deleted(client, served):
    data = random.Random(1).randbytes(1_000_003)
    made = client.files.create(file=("räte.jsonl", io.BytesIO(data)), purpose="fine-tune")
    assert (made.filename, made.bytes, made.status, made.purpose) == ("räte.jsonl", len(data), "processed", "fine-tune")
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == data
    assert client.files.wait_for_processing(made.id).id == made.id
    assert hashlib.sha256(data).hexdigest() in blobs(served)
    gone = client.files.delete(made.id)
    assert (gone.id, gone.deleted) == (made.id, True)
    assert hashlib.sha256(data).hexdigest() not in blobs(served)
    for call in (client.files.retrieve, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            call(made.id)


def test_the_same_bytes_are_kept_once_until_the_last_file_is_deleted(client, served):
    first, second = (client.files.create(file=("a.jsonl", b"same"), purpose="fine-tune") for _ in range(2))
    sha256 = hashlib.sha256(b"same").hexdigest()
    assert blobs(served).count(sha256) == 1
    client.files.delete(first.id)
    assert client.files.content(second.id).read() == b"same"
    client.files.delete(second.id)
    assert sha256 not in blobs(served)


def test_lists_page_through_all_files_once(client):
    made = [client.files.create(file=("a.jsonl", b"%d" % index), purpose="evals").id for index in range(5)]
    assert [file.id for file in client.files.list(purpose="evals", limit=2, order="asc")] == made
    assert [file.id for file in client.files.list(purpose="evals", limit=2)] == made[::-1]


def test_a_form_in_another_order_and_without_a_length_is_read(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    form = part("file", b"abc" * 1000, "x.jsonl") + part("purpose", b"fine-tune") + END
    chunks = (form[index : index + 7] for index in range(0, len(form), 7))
    connection.request("POST", "/v1/files", chunks, {"authorization": f"Bearer {served.key}", **FORM}, encode_chunked=True)
    reply = connection.getresponse()
    assert reply.status == 200
    assert b'"bytes":3000' in reply.read()
    connection.close()


@pytest.mark.parametrize(
    ("form", "param"),
    [
        (part("file", b"abc", "x.jsonl") + END, "purpose"),
        (part("purpose", b"take-over") + part("file", b"abc", "x.jsonl") + END, "purpose"),
        (part("purpose", b"fine-tune") + END, "file"),
        (part("purpose", b"fine-tune") + part("file", b"abc", "x.jsonl"), "file"),
        (part("purpose", b"fine-tune") + part("file", b"a", "x") + part("file", b"b", "y") + END, "file"),
        (part("purpose", b"batch_output") + part("file", b"abc", "x.jsonl") + END, "purpose"),
        (PURPOSE + part("expires_after[anchor]", b"created_at") + part("file", b"a", "x") + END, "expires_after[seconds]"),
        (PURPOSE + part("expires_after[seconds]", b"3600") + part("file", b"a", "x") + END, "expires_after[anchor]"),
        (PURPOSE + expiry(b"3599") + part("file", b"a", "x") + END, "expires_after[seconds]"),
        (PURPOSE + expiry(b"2592001") + part("file", b"a", "x") + END, "expires_after[seconds]"),
        (PURPOSE + expiry(b"1e4") + part("file", b"a", "x") + END, "expires_after[seconds]"),
        (PURPOSE + part("colour", b"red") + part("file", b"a", "x") + END, "colour"),
        (part("purpose", b"x" * 100_000) + part("file", b"a", "x") + END, "purpose"),
        (b"no form at all", "file"),
        (b"", "file"),
    ],
)
def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(served, form, param):
    before = blobs(served)
    status, _, body = served.request("POST", "/v1/files", form, FORM)
    assert (status, body["error"]["param"]) == (400, param)
    assert blobs(served) == before


def test_what_is_no_form_is_refused(served):
    status, _, body = served.request("POST", "/v1/files", b"{}", {"content-type": "application/json"})
    assert (status, body["error"]["param"]) == (400, "file")
    status, _, body = served.request("POST", "/v1/files", b"", {"content-type": f"multipart/form-data; boundary={'-' * 5000}"})
    assert (status, body["error"]["param"]) == (400, "file")


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(client, served):
    before = blobs(served)
    limit = served.desk.settings.max_upload_bytes
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("big.jsonl", b"x" * (limit + 1)), purpose="fine-tune")
    assert caught.value.code == "file_too_large"
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=("big.jsonl", b"x" * (limit + 2_000_000)), purpose="fine-tune")
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    assert blobs(served) == before


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\windows\\con", "con"),
        ("a\x00b\r\n.jsonl", "ab.jsonl"),
        ("", "upload"),
        ("x" * 5000, "x" * 255),
    ],
)
def test_a_clients_file_name_is_for_people_only(name, kept):
    assert clean_name(name) == kept


def test_a_download_is_never_shown_as_a_page(client):
    made = client.files.create(file=("x.html", b"<script>alert(1)</script>"), purpose="user_data")
    headers = client.files.content(made.id).response.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"].startswith("attachment")


def test_a_file_goes_when_its_time_is_over(client, served):
    made = client.files.create(
        file=("a.jsonl", b"for an hour"), purpose="evals", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    sha256 = hashlib.sha256(b"for an hour").hexdigest()
    assert made.expires_at == made.created_at + 3600
    assert client.files.retrieve(made.id).expires_at == made.expires_at
    sweep(served.desk.database, served.desk.store)
    assert client.files.content(made.id).read() == b"for an hour"
    with served.desk.database.write() as connection:
        connection.execute(update(table).where(table.c.id == made.id).values(expires=1))
    assert made.id not in [file.id for file in client.files.list()]
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    assert sha256 in blobs(served)
    assert sweep(served.desk.database, served.desk.store) == 1
    assert sha256 not in blobs(served)


def test_what_the_server_makes_can_be_read_like_any_file(client, served):
    blob = served.desk.store.put([b"step,train_loss"])
    with served.desk.database.write() as connection:
        files.add(connection, files.File("file-made", "out.jsonl", "batch_output", blob.num_bytes, blob.sha256, 1))
    assert [file.id for file in client.files.list(purpose="batch_output")] == ["file-made"]
    assert client.files.content("file-made").read() == b"step,train_loss"
    client.files.delete("file-made")


def test_a_file_of_another_project_is_not_there(client, served):
    with served.desk.database.write() as connection:
        other = projects.create(connection, "other").id
        _, text = keys.create(connection, "foreign", project=other)
    foreign = served.client(api_key=text)
    made = client.files.create(file=("a.jsonl", b"mine"), purpose="evals")
    assert foreign.files.list().data == []
    for call in (foreign.files.retrieve, foreign.files.content, foreign.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            call(made.id)
    assert client.files.content(made.id).read() == b"mine"


def test_a_blob_that_a_kill_left_without_a_row_is_found_and_taken_away(client, served):
    made = client.files.create(file=("a.jsonl", b"has a row"), purpose="evals")
    lost = served.desk.store.put([b"has none"]).sha256
    assert search(served.desk.database, served.desk.store) == 0
    assert lost in blobs(served)
    (served.desk.store.root / ".half.new").write_bytes(b"half of")
    search(served.desk.database, served.desk.store, seconds=-60)
    assert lost not in blobs(served)
    assert client.files.content(made.id).read() == b"has a row"


@pytest.mark.parametrize("limit", [0, 10_001, "many"])
def test_a_limit_that_openai_would_not_take_is_refused(served, limit):
    status, _, body = served.request("GET", f"/v1/files?limit={limit}")
    assert (status, body["error"]["param"]) == (400, "limit")
