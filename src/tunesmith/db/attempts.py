"""How far each attempt's events.jsonl has been read into rows."""

from sqlalchemy import Connection, insert, select, update

from tunesmith.db.tables import attempts
from tunesmith.types import unix_now


def offset(connection: Connection, job_id: str, attempt: int) -> int:
    """Bytes of the attempt's file that are rows already."""
    mine = (attempts.c.job_id == job_id) & (attempts.c.attempt == attempt)
    return int(connection.execute(select(attempts.c.offset).where(mine)).scalar() or 0)


def set_offset(connection: Connection, job_id: str, attempt: int, value: int) -> None:
    mine = (attempts.c.job_id == job_id) & (attempts.c.attempt == attempt)
    if connection.execute(update(attempts).where(mine).values(offset=value)).rowcount == 0:
        connection.execute(insert(attempts).values(job_id=job_id, attempt=attempt, offset=value, started=unix_now()))
