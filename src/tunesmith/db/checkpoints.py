"""Checkpoints that are served: the adapter at the end of an epoch, under a name of its own. Those to resume from have no row."""

import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from tunesmith.db.paging import page
from tunesmith.db.tables import checkpoints
from tunesmith.types import DEFAULT_PROJECT, Quantization


@dataclass(frozen=True)
class Checkpoint:
    """`model` is the name that it answers to, `{fine-tuned model}:ckpt-step-{step}`; `path` is relative to the data directory."""

    job_id: str
    step: int
    model: str
    base: str
    quantization: Quantization
    path: str
    content_hash: str
    created: int
    project: str = DEFAULT_PROJECT
    id: str = field(default_factory=lambda: f"ftckpt_{secrets.token_hex(12)}")


def from_row(row: Row[Any]) -> Checkpoint:
    values = dict(row._mapping)
    del values["num"]
    return Checkpoint(**values)


def put(connection: Connection, checkpoint: Checkpoint) -> None:
    """Adds it, in place of the one that an earlier attempt made at the same step."""
    mine = (checkpoints.c.job_id == checkpoint.job_id) & (checkpoints.c.step == checkpoint.step)
    connection.execute(delete(checkpoints).where(mine))
    connection.execute(insert(checkpoints).values(asdict(checkpoint)))


def keep_newest(connection: Connection, job_id: str, count: int) -> None:
    """Forgets those of a job that are older than its newest `count`: their files go when the next epoch ends."""
    newest = select(checkpoints.c.step).where(checkpoints.c.job_id == job_id).order_by(checkpoints.c.step.desc())
    steps = list(connection.execute(newest).scalars())
    connection.execute(delete(checkpoints).where(checkpoints.c.job_id == job_id, checkpoints.c.step.in_(steps[count:])))


def find(connection: Connection, model: str) -> Checkpoint | None:
    row = connection.execute(select(checkpoints).where(checkpoints.c.model == model)).first()
    return None if row is None else from_row(row)


def list_page(connection: Connection, job_id: str, *, after: str | None, limit: int) -> tuple[list[Checkpoint], bool]:
    """Those of a job, newest first, and whether there are more."""
    found = page(connection, checkpoints, checkpoints.c.job_id == job_id, after=after, limit=limit)
    return [from_row(row) for row in found.rows], found.has_more


def list_all(connection: Connection, project: str) -> list[Checkpoint]:
    """Oldest first."""
    query = select(checkpoints).where(checkpoints.c.project == project).order_by(checkpoints.c.num)
    return [from_row(row) for row in connection.execute(query)]


def remove_of_job(connection: Connection, job_id: str) -> list[Checkpoint]:
    """Those that were."""
    gone = [from_row(row) for row in connection.execute(select(checkpoints).where(checkpoints.c.job_id == job_id))]
    connection.execute(delete(checkpoints).where(checkpoints.c.job_id == job_id))
    return gone


def remove(connection: Connection, model: str) -> None:
    connection.execute(delete(checkpoints).where(checkpoints.c.model == model))
