"""The database's shape: made by migrations, in one transaction, and the same as the tables say."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from tunesmith.db import jobs
from tunesmith.db.migrate import migrate, newest, open_database, upgrade
from tunesmith.db.session import Database
from tunesmith.db.tables import metadata
from tunesmith.errors import TunesmithError


@pytest.fixture(params=["sqlite", "postgresql"])
def nothing(request, tmp_path):
    """Where there is no table yet."""
    is_sqlite = request.param == "sqlite"
    return tmp_path / "t.db", None if is_sqlite else request.getfixturevalue("postgresql").new_url(empty=True)


def test_migrations_make_exactly_the_tables(where):
    database = open_database(*where)
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


def test_opening_again_changes_nothing(tmp_path):
    open_database(tmp_path / "t.db").close()
    before = sqlite3.connect(tmp_path / "t.db").execute("select sql from sqlite_master").fetchall()
    open_database(tmp_path / "t.db").close()
    assert sqlite3.connect(tmp_path / "t.db").execute("select sql from sqlite_master").fetchall() == before


def test_of_many_servers_that_start_at_once_one_makes_the_tables(nothing):
    with ThreadPoolExecutor(4) as pool:
        for database in pool.map(lambda _: open_database(*nothing), range(4)):
            database.close()


def test_a_migration_that_breaks_leaves_the_old_shape(nothing):
    database = Database(*nothing)
    with database.write() as connection:
        connection.exec_driver_sql("create table models (already text)")  # the last table that the first migration makes
    with pytest.raises(Exception, match="already exists"):
        migrate(database)
    with database.read() as connection:
        assert inspect(connection).get_table_names() == ["models"]
    database.close()


def test_a_database_of_a_newer_version_is_refused_in_one_sentence(where):
    database = open_database(*where)
    with database.write() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    with pytest.raises(TunesmithError, match="newer version") as caught:
        migrate(database)
    assert caught.value.hint == "Update Tunesmith."
    assert newest() != "9999"
    database.close()


def test_a_job_of_the_first_shape_keeps_what_it_was_asked_and_what_it_made(nothing):
    database = Database(*nothing)
    upgrade(database, "0001")
    with database.write() as connection:
        connection.exec_driver_sql(
            "insert into jobs (id, status, wanted, base, recipe, hyperparameters, suffix, training_file, attempt, crashes,"
            " max_attempts, created, result, fine_tuned_model) values ('ftjob-1', 'succeeded', 'run', 'tunesmith/tiny',"
            " '{\"seed\": 1}', '{\"n_epochs\": 2}', 'mine', 'file-1', 1, 0, 5, 7, '{\"trained_tokens\": 3}', 'ft:x')"
        )
        connection.exec_driver_sql("insert into events (id, job_id, attempt, seq, time, type, level, message, payload)"
                                   " values ('e', 'ftjob-1', 1, 1, 0, 'step', 'info', '', '{}')")
    migrate(database)
    with database.read() as connection:
        job = jobs.get(connection, "ftjob-1")
    assert (job.kind, job.project, job.recipe) == ("fine_tuning", "proj_default", {"seed": 1})
    assert (job.order["model"], job.order["suffix"], job.order["hyperparameters"]) == ("tunesmith/tiny", "mine", {"n_epochs": 2})
    assert job.result == {"trained_tokens": 3, "fine_tuned_model": "ft:x"}
    database.close()
