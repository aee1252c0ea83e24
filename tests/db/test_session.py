"""Transactions: durable, alone when they write, and clear about a full disk. The same on SQLite and PostgreSQL."""

import stat
import threading

import pytest
from orders import tuning_job
from sqlalchemy import inspect, update

from tunesmith.db import files, jobs, keys
from tunesmith.db.files import File
from tunesmith.db.migrate import open_database
from tunesmith.db.session import Database, to_url
from tunesmith.db.tables import jobs as table
from tunesmith.errors import Busy, InvalidRequest, StorageFull
from tunesmith.types import DEFAULT_PROJECT


@pytest.fixture
def database(where):
    opened = open_database(*where)
    yield opened
    opened.close()


def test_a_committed_row_survives_a_power_cut_and_only_the_owner_reads_the_file(tmp_path):
    database = open_database(tmp_path / "t.db")
    with database.read() as connection:
        names = ("journal_mode", "synchronous", "busy_timeout")
        assert [connection.exec_driver_sql(f"pragma {name}").scalar() for name in names] == ["wal", 2, 30_000]
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
    database.close()


def test_two_writers_that_read_first_wait_for_each_other(database):
    with database.write() as connection:
        connection.exec_driver_sql("create table counter (value integer)")
        connection.exec_driver_sql("insert into counter values (0)")

    def add():
        for _ in range(25):
            with database.write() as connection:
                value = connection.exec_driver_sql("select value from counter").scalar_one()
                connection.exec_driver_sql(f"update counter set value = {value + 1}")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.exec_driver_sql("select value from counter").scalar_one() == 100


def test_an_error_inside_takes_everything_back(database):
    with pytest.raises(ZeroDivisionError):
        _make_and_fail(database)
    with database.read() as connection:
        assert not inspect(connection).has_table("gone")


def _make_and_fail(database):
    with database.write() as connection:
        connection.exec_driver_sql("create table gone (value integer)")
        raise ZeroDivisionError


def test_a_reader_sees_one_state_while_others_write(database):
    with database.write() as connection:
        connection.exec_driver_sql("create table counter (value integer)")
    with database.read() as reader:
        assert reader.exec_driver_sql("select count(*) from counter").scalar() == 0
        with database.write() as writer:
            writer.exec_driver_sql("insert into counter values (1)")
        assert reader.exec_driver_sql("select count(*) from counter").scalar() == 0
    with database.read() as reader:
        assert reader.exec_driver_sql("select count(*) from counter").scalar() == 1


def test_text_that_cannot_be_stored_is_the_clients_mistake(database):
    file = File("file-1", "half a \ud800 surrogate", "evals", 1, "00", 1)
    with pytest.raises(InvalidRequest, match="cannot be stored"), database.write() as connection:
        files.add(connection, file)


def test_postgresql_says_in_time_what_is_wrong(postgresql, tmp_path):
    database = open_database(tmp_path / "t.db", postgresql.new_url())
    with pytest.raises(InvalidRequest, match="cannot be stored"), database.read() as connection:
        files.get(connection, "file-\0", DEFAULT_PROJECT)
    file = File("file-1", "a", "evals", 2**70, "00", 1)
    with pytest.raises(InvalidRequest, match="cannot be stored"), database.write() as connection:
        files.add(connection, file)
    with database.write() as connection:
        job = tuning_job("job-1", metadata={"nul": "a\0b", "half": "\ud800", "whole": "\U0001f600"})
        jobs.add(connection, job)
        kept = jobs.get(connection, "job-1").metadata
    assert kept == {"nul": "a\ufffdb", "half": "\ufffd", "whole": "\U0001f600"}
    database.close()
    away = Database(tmp_path / "t.db", "postgresql://tunesmith@/none?host=/nowhere")
    with pytest.raises(Busy, match="does not answer"), away.read():
        pass
    away.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "no url", "sqlite:///x"])
def test_an_address_of_another_kind_is_refused(tmp_path, url):
    with pytest.raises(InvalidRequest) as caught:
        Database(tmp_path / "t.db", url)
    assert caught.value.param == "database_url"


def test_a_password_is_not_shown():
    assert "secret" not in str(to_url("postgresql://me:secret@host/name"))


def _fill(database):
    with database.write() as connection:
        connection.exec_driver_sql("pragma max_page_count = 8")  # the connection's own limit; the same error as a full disk
        connection.exec_driver_sql("insert into big values (zeroblob(1000000))")


def test_a_full_disk_is_said_as_such(tmp_path):
    database = Database(tmp_path / "small.db")
    with database.write() as connection:
        connection.exec_driver_sql("create table big (value blob)")
    with pytest.raises(StorageFull, match="is full"):
        _fill(database)
    with database.read() as connection:
        assert connection.exec_driver_sql("select count(*) from big").scalar() == 0
    database.close()


def test_only_what_changes_a_row_counts_as_a_write(tmp_path):
    database = open_database(tmp_path / "t.db")
    with database.write() as connection:
        key, _ = keys.create(connection, "x")
    before = database.num_writes
    with database.write() as connection:
        keys.touch(connection, {"nobody": 1})
    with database.read() as connection:
        keys.list_all(connection)
    assert database.num_writes == before
    with database.write() as connection:
        keys.touch(connection, {key.id: 1})
    assert database.num_writes == before + 1
    database.close()


@pytest.mark.parametrize("with_returning", [False, True])
def test_a_change_is_counted_and_looking_for_work_is_not(database, with_returning):
    with database.write() as connection:
        jobs.add(connection, tuning_job("job"))
    before = database.num_writes

    def set_status(job_id):
        statement = update(table).where(table.c.id == job_id).values(status="queued")
        with database.write() as connection:
            connection.execute(statement.returning(table.c.id) if with_returning else statement)

    if not with_returning:  # with RETURNING nobody can tell before the rows are read
        set_status("nobody")
        assert database.num_writes == before
    set_status("job")
    assert database.num_writes > before
