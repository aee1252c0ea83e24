"""Who needs a blob: every table with a column `sha256` may. Does not open blobs.

A blob goes with its last row. Whoever removes a row removes the blob inside the same writing transaction, and whoever adds a row
looks there whether the blob is still in the store. Writers are alone (session.py): neither comes between the other's two steps.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, exists, or_, select

from tunesmith.db.tables import metadata

OWNERS = tuple(table.c.sha256 for table in metadata.sorted_tables if "sha256" in table.c)


def is_used(connection: Connection, sha256: str) -> bool:
    """Does any row have this content?"""
    held = or_(*(exists().where(column == sha256) for column in OWNERS))
    return bool(connection.execute(select(held)).scalar_one())


def unused(connection: Connection, hashes: Iterable[str]) -> list[str]:
    """Those that no row has."""
    return [sha256 for sha256 in dict.fromkeys(hashes) if not is_used(connection, sha256)]
