"""Lists end, miss nothing and repeat nothing, in both orders."""

import pytest

from tunesmith.db import blobs, files
from tunesmith.db.files import File
from tunesmith.db.migrate import open_database
from tunesmith.errors import InvalidRequest
from tunesmith.types import DEFAULT_PROJECT


@pytest.fixture
def connection(where):
    database = open_database(*where)
    with database.write() as connection:
        for index in range(5):
            files.add(connection, File(f"file-{index}", "a", "fine-tune" if index != 2 else "evals", 1, "00", created=7))
        yield connection
    database.close()


@pytest.mark.parametrize(("order", "expected"), [("asc", [0, 1, 2, 3, 4]), ("desc", [4, 3, 2, 1, 0])])
def test_pages_join_to_the_whole_list(connection, order, expected):
    seen, after, has_more = [], None, True
    while has_more:
        page, has_more = files.list_page(connection, DEFAULT_PROJECT, after=after, limit=2, order=order, purpose=None)
        seen += [file.id for file in page]
        after = seen[-1]
    assert seen == [f"file-{index}" for index in expected]


def test_a_filter_holds_across_pages_and_an_unknown_cursor_is_an_error(connection):
    page, has_more = files.list_page(connection, DEFAULT_PROJECT, after="file-1", limit=10, order="asc", purpose="fine-tune")
    assert ([file.id for file in page], has_more) == (["file-3", "file-4"], False)
    with pytest.raises(InvalidRequest, match="no 'nobody'"):
        files.list_page(connection, DEFAULT_PROJECT, after="nobody", limit=10, order="asc", purpose=None)


def test_a_blob_is_nobodys_only_when_its_last_file_is_gone(connection):
    for index in range(4):
        files.remove(connection, f"file-{index}", DEFAULT_PROJECT)
        assert blobs.is_used(connection, "00")
    files.remove(connection, "file-4", DEFAULT_PROJECT)
    assert blobs.unused(connection, ["00", "00"]) == ["00"]
