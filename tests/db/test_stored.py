"""Stored answers belong to a project, are found by their labels, and lie in the blob store when they are large."""

import pytest

from tunesmith.db import stored
from tunesmith.db.migrate import open_database
from tunesmith.errors import NotFound
from tunesmith.store import BlobStore


@pytest.fixture
def database(where):
    opened = open_database(*where)
    yield opened
    opened.close()


def row(number, project="proj_a", kind="completion", model="m", created=100, status="completed", **metadata):
    text = stored.to_document({"request": {"messages": []}, "answer": {"id": f"c-{number}"}})
    return stored.Stored(f"c-{number}", kind, project, model, created, metadata, text, status=status)


def test_lists_are_a_projects_own_and_filtered_by_labels_model_and_time(database):
    rows = [row(1, tag="x"), row(2, tag="y"), row(3, tag="x", created=200), row(4, "proj_b", tag="x"),
            row(5, tag="x", model="n"), row(6, kind="response", tag="x"), row(7, kind="response", status="failed")]
    with database.write() as connection:
        stored.add_all(connection, rows)

    def ids(found):
        return [item.id for item in found[0]]

    with database.read() as connection:
        assert ids(stored.list_completions(connection, "proj_a", metadata={"tag": "x"})) == ["c-1", "c-3", "c-5"]
        labelled = {"metadata": {"tag": "x"}, "model": "m"}
        assert ids(stored.list_completions(connection, "proj_a", **labelled, order="desc")) == ["c-3", "c-1"]
        assert ids(stored.list_completions(connection, "proj_a", created_after=150, created_before=250)) == ["c-3"]
        assert ids(stored.list_completions(connection, "proj_a", after="c-1", limit=1)) == ["c-2"]
        assert ids(stored.list_responses(connection, "proj_a")) == ["c-6"]
        for foreign in (("completion", "proj_b", "c-1"), ("response", "proj_a", "c-1"), ("completion", "proj_a", "c-9")):
            with pytest.raises(NotFound):
                stored.get(connection, *foreign)


def test_a_row_that_is_there_is_replaced(database):
    with database.write() as connection:
        stored.add_all(connection, [row(1, kind="response", status="queued")])
        stored.add_all(connection, [row(1, kind="response"), row(2, kind="response")])
    with database.read() as connection:
        assert [item.status for item in stored.list_responses(connection, "proj_a")[0]] == ["completed", "completed"]
        assert stored.list_open_responses(connection) == []


def test_a_large_document_is_a_blob_and_goes_with_its_row(database, tmp_path):
    store = BlobStore(tmp_path / "blobs")
    large = {"request": {"messages": [{"role": "user", "content": "x" * stored.LARGE}]}, "answer": {}}
    made = stored.laid_out(store, stored.Stored("c-1", "completion", "p", "m", 1, {}, stored.to_document(large)))
    small = row(2)
    assert stored.laid_out(store, small) is small
    assert made.document is None
    assert stored.document(store, made)["request"] == large["request"]
    with database.write() as connection:
        stored.add_all(connection, [made])
        assert stored.remove(connection, made) == made.sha256


def test_what_any_client_sent_can_be_kept(database, tmp_path):
    odd = {"request": {"messages": [{"role": "user", "content": "\x00 \ud800 'quote\" {}"}]}, "answer": {}}
    with database.write() as connection:
        stored.add_all(connection, [stored.Stored("c-1", "completion", "p", "m", 1, {}, stored.to_document(odd))])
    with database.read() as connection:
        assert stored.document(BlobStore(tmp_path), stored.get(connection, "completion", "p", "c-1")) == odd
