"""Transactions: durable, alone when they write, and clear about a full disk."""

import stat
import threading

import pytest

from tunesmith.db.migrate import open_database
from tunesmith.db.session import Database
from tunesmith.errors import StorageFull


@pytest.fixture
def database(tmp_path):
    opened = open_database(tmp_path / "t.db")
    yield opened
    opened.close()


def test_a_committed_row_survives_a_power_cut_and_only_the_owner_reads_the_file(database):
    with database.read() as connection:
        names = ("journal_mode", "synchronous", "busy_timeout")
        assert [connection.exec_driver_sql(f"pragma {name}").scalar() for name in names] == ["wal", 2, 30_000]
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600


def test_two_writers_that_read_first_wait_for_each_other(database):
    with database.write() as connection:
        connection.exec_driver_sql("create table counter (value integer)")
        connection.exec_driver_sql("insert into counter values (0)")

    def add():
        for _ in range(25):
            with database.write() as connection:
                value = connection.exec_driver_sql("select value from counter").scalar_one()
                connection.exec_driver_sql("update counter set value = ?", (value + 1,))

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
        assert connection.exec_driver_sql("select count(*) from sqlite_master where name = 'gone'").scalar() == 0


def _make_and_fail(database):
    with database.write() as connection:
        connection.exec_driver_sql("create table gone (value integer)")
        raise ZeroDivisionError


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
