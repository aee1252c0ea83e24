"""API keys: shown once, kept hashed, dead as soon as they are revoked."""

import pytest

from tunesmith.db import keys
from tunesmith.db.migrate import open_database
from tunesmith.errors import NotFound, Unauthorized


@pytest.fixture
def connection(tmp_path):
    database = open_database(tmp_path / "t.db")
    with database.write() as connection:
        yield connection
    database.close()


def test_a_key_opens_and_its_text_is_not_in_the_database(connection, tmp_path):
    key, text = keys.create(connection, "laptop")
    assert keys.check(connection, text) == key
    assert text.startswith(key.id)
    connection.commit()
    secret = text.removeprefix(key.id + "_").encode()
    assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())


def test_a_wrong_or_altered_key_is_refused(connection):
    _, text = keys.create(connection, "laptop")
    for wrong in ("", "sk-wrong", text[:-1], text + "x", text.lower() + "_", "' OR 1=1;--", "ts__", "ts_\u00e9_\u00e9"):
        with pytest.raises(Unauthorized):
            keys.check(connection, wrong)


def test_a_revoked_key_is_refused_and_the_others_work(connection):
    gone, gone_text = keys.create(connection, "old")
    _, text = keys.create(connection, "new")
    assert keys.revoke(connection, gone.id).revoked is not None
    with pytest.raises(Unauthorized):
        keys.check(connection, gone_text)
    assert keys.check(connection, text).name == "new"


def test_a_name_that_two_keys_have_revokes_neither(connection):
    for _ in range(2):
        keys.create(connection, "same")
    with pytest.raises(NotFound, match="More than one"):
        keys.revoke(connection, "same")
    with pytest.raises(NotFound, match="No working key"):
        keys.revoke(connection, "nobody")
    assert all(key.revoked is None for key in keys.list_all(connection))
