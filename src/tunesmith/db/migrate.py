"""Brings the database to the newest shape, in one transaction: a kill in the middle leaves the old shape. Knows no rows."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from tunesmith.db.secret import server_secret
from tunesmith.db.session import Database
from tunesmith.errors import TunesmithError

MIGRATIONS = Path(__file__).parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def newest() -> str:
    """The revision that this version of the program wants."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def migrate(database: Database) -> None:
    """Applies what is missing. Raises TunesmithError when the file is damaged or was written by a newer version."""
    with database.read() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        health = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() if database.is_sqlite else "ok"
    if health != "ok":
        raise TunesmithError(f"The database {database.name} is damaged: {health}.", hint="Restore it from a backup.")
    if found == newest():
        return
    try:
        upgrade(database, "head")
    except CommandError as error:
        raise TunesmithError(
            f"The database {database.name} was written by a newer version of Tunesmith ({found}).", hint="Update Tunesmith."
        ) from error


def upgrade(database: Database, revision: str) -> None:
    """Applies what is missing up to `revision`, all or nothing. Writers are alone: of several servers that start, one does it."""
    config = _config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def open_database(path: Path, url: str | None = None) -> Database:
    """The database at `url`, or else the file `path`, made if it is not there; in the newest shape.

    The server's secret lies beside `path` in any case.
    """
    database = Database(path, url)
    migrate(database)
    database.engine.update_execution_options(secret=server_secret(path.with_name("secret")))
    return database
