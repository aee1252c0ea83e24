"""Keys are remembered for less than a second: what changes in the table is obeyed then, and at once what changes through us."""

import asyncio

import pytest

from tunesmith.api.auth import FRESH_SECONDS, STALE_SECONDS, Callers
from tunesmith.db import keys, projects
from tunesmith.db.migrate import open_database
from tunesmith.errors import Unauthorized
from tunesmith.types import unix_now


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def database(tmp_path):
    database = open_database(tmp_path / "t.db")
    yield database
    database.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def callers(database, clock):
    return Callers(database, clock)


def make(database, **rights):
    with database.write() as connection:
        return keys.create(connection, "test", **rights)


def revoke(database, key):
    with database.write() as connection:
        keys.revoke(connection, key.id)


def header(text):
    return [f"Bearer {text}"]


async def test_a_key_that_was_revoked_elsewhere_is_refused_within_a_second(database, callers, clock):
    key, text = make(database)
    assert (await callers.check(header(text))).key == key
    revoke(database, key)
    assert STALE_SECONDS < 1
    clock.now += STALE_SECONDS
    with pytest.raises(Unauthorized):
        await callers.check(header(text))


async def test_one_revoked_through_this_server_is_refused_at_once(database, callers):
    key, text = make(database)
    await callers.check(header(text))
    revoke(database, key)
    callers.forget()
    with pytest.raises(Unauthorized):
        await callers.check(header(text))


async def test_a_key_in_use_is_read_again_beside_the_requests(database, callers, clock):
    key, text = make(database)
    await callers.check(header(text))
    revoke(database, key)
    clock.now += FRESH_SECONDS
    await callers.check(header(text))  # believed once more, and read again meanwhile
    while callers._reading:
        await asyncio.gather(*callers._reading.values(), return_exceptions=True)
    with pytest.raises(Unauthorized):
        await callers.check(header(text))


async def test_many_requests_with_a_new_key_read_the_table_once(database, callers, monkeypatch):
    _, text = make(database)
    reads = []
    read = database.read
    monkeypatch.setattr(database, "read", lambda: reads.append(1) or read())
    await asyncio.gather(*(callers.check(header(text)) for _ in range(20)))
    await callers.check(header(text))
    assert len(reads) == 1


async def test_a_key_that_expires_while_it_is_remembered_is_refused(database, callers, monkeypatch):
    _, text = make(database, expires=unix_now() + 1000)
    await callers.check(header(text))
    monkeypatch.setattr("tunesmith.api.auth.unix_now", lambda: unix_now() + 1000)
    with pytest.raises(Unauthorized, match="expired"):
        await callers.check(header(text))


async def test_no_key_of_an_archived_project_works(database, callers):
    with database.write() as connection:
        project = projects.create(connection, "gone")
    _, text = make(database, project=project.id)
    await callers.check(header(text))
    with database.write() as connection:
        projects.archive(connection, project.id)
    callers.forget()
    with pytest.raises(Unauthorized, match="archived"):
        await callers.check(header(text))


async def test_wrong_keys_are_not_remembered(database, callers):
    _, text = make(database)
    for wrong in ("sk-wrong", f"{text}x", "ts_aaaaaaaaaa_" + "b" * 32):
        with pytest.raises(Unauthorized):
            await callers.check(header(wrong))
    assert callers._known == {}


async def test_keys_that_were_used_are_told_once(database, callers):
    key, text = make(database)
    await callers.check(header(text))
    assert list(callers.take_last_used()) == [key.id]
    assert callers.take_last_used() == {}
