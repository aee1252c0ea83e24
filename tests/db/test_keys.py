"""API keys: shown once, kept as an HMAC, dead when they are revoked or expired, replaced with an overlap."""

import hashlib

import pytest
from sqlalchemy import update

from tunesmith.db import keys
from tunesmith.db.migrate import open_database
from tunesmith.db.tables import keys as table
from tunesmith.errors import NotFound, Unauthorized
from tunesmith.types import unix_now


@pytest.fixture
def connection(where):
    database = open_database(*where)
    with database.write() as connection:
        yield connection
    database.close()


def test_a_key_opens_and_its_text_is_not_in_the_database(connection, tmp_path):
    key, text = keys.create(connection, "laptop")
    assert keys.check(connection, text) == key
    assert text.startswith(key.id)
    connection.commit()
    secret = text.split("_")[2].encode()
    assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())


def test_who_has_the_database_alone_cannot_try_keys(connection):
    key, text = keys.create(connection, "laptop")
    assert hashlib.sha256(text.encode()).hexdigest() not in key.hash
    assert keys.digest(text, b"another server's") != key.hash


def test_a_wrong_or_altered_key_is_refused(connection):
    _, text = keys.create(connection, "laptop")
    for wrong in ("", "sk-wrong", text[:-1], text + "x", text.lower() + "_", "' OR 1=1;--", "ts__", "ts_\u00e9_\u00e9"):
        with pytest.raises(Unauthorized):
            keys.check(connection, wrong)


def test_a_mistyped_key_is_told_apart_without_the_database(connection):
    _, text = keys.create(connection, "laptop")
    typo = text[:15] + ("a" if text[15] != "a" else "b") + text[16:]
    with pytest.raises(Unauthorized, match="mistyped"):
        keys.id_of(typo)


def test_a_key_of_the_first_version_still_opens(connection):
    key, _ = keys.create(connection, "old")
    text = f"{key.id}_{'s' * 32}"
    connection.execute(update(table).where(table.c.id == key.id).values(hash=hashlib.sha256(text.encode()).hexdigest()))
    assert keys.check(connection, text).name == "old"
    with pytest.raises(Unauthorized):
        keys.check(connection, f"{key.id}_{'t' * 32}")


def test_a_revoked_key_is_refused_and_the_others_work(connection):
    gone, gone_text = keys.create(connection, "old")
    _, text = keys.create(connection, "new")
    assert keys.revoke(connection, gone.id).revoked is not None
    with pytest.raises(Unauthorized):
        keys.check(connection, gone_text)
    with pytest.raises(NotFound):
        keys.revoke(connection, gone.id)
    assert keys.check(connection, text).name == "new"


def test_an_expired_key_says_so(connection):
    _, text = keys.create(connection, "short", expires=unix_now() - 1)
    with pytest.raises(Unauthorized, match="expired"):
        keys.check(connection, text)


def test_a_rotated_key_works_as_long_as_it_was_told_and_its_successor_has_its_rights(connection):
    rights = {"project": "proj_x", "role": "member", "scopes": ["files.read"], "models": ["ft:*"], "limits": {}}
    old, old_text = keys.create(connection, "ci", **rights)
    new, text = keys.rotate(connection, old, overlap_seconds=3600)
    assert {name: getattr(new, name) for name in rights} == rights
    before = keys.check(connection, old_text)
    assert before.successor == new.id
    assert 3590 <= before.expires - unix_now() <= 3600
    assert keys.check(connection, text) == new
    _, _ = keys.rotate(connection, new, overlap_seconds=0)
    with pytest.raises(Unauthorized, match="expired"):
        keys.check(connection, text)
    with pytest.raises(Unauthorized, match="does not work"):
        keys.rotate(connection, keys.get(connection, new.id, None), overlap_seconds=1)


def test_a_name_that_two_keys_have_revokes_neither(connection):
    for _ in range(2):
        keys.create(connection, "same")
    with pytest.raises(NotFound, match="More than one"):
        keys.revoke(connection, "same")
    with pytest.raises(NotFound, match="No working key"):
        keys.revoke(connection, "nobody")
    assert all(key.revoked is None for key in keys.list_all(connection))


def test_a_key_of_another_project_is_not_found(connection):
    key, _ = keys.create(connection, "theirs", project="proj_theirs")
    assert keys.get(connection, key.id, "proj_theirs") == key
    with pytest.raises(NotFound):
        keys.get(connection, key.id, "proj_mine")
    assert keys.list_page(connection, "proj_mine", after=None, limit=10) == ([], False)
