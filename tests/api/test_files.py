"""Files: what is uploaded comes back byte for byte, or nothing is kept and the reason is said."""

import hashlib
import http.client
import io
import random

import openai
import pytest

from tunesmith.api.files import clean_name

BOUNDARY = "xyz"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name, value, filename=None):
    named = f'; filename="{filename}"' if filename else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def blobs(served):
    return sorted(path.name for path in served.desk.store.root.rglob("*") if path.is_file())


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
        (part("expires_after[anchor]", b"created_at") + part("file", b"a", "x") + END, "expires_after[anchor]"),
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
