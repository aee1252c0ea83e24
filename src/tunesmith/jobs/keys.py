"""The key with which an attempt asks the desk: no mightier than the one that ordered the job, at its expense, and soon gone.

It travels in the worker's environment and stands nowhere. A server that is killed leaves it; the job's next attempt revokes it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tunesmith.db import keys
from tunesmith.db.jobs import Job
from tunesmith.db.session import Database
from tunesmith.types import JobKind, unix_now

SCOPES: dict[JobKind, list[str]] = {
    "batch": ["model.request"],
    "eval_run": ["model.request", "files.read", "completions.read", "responses.read"],
}
"""Kind -> what its worker may do. A kind that is not here asks nobody, and gets no key."""
LONGEST_SECONDS = 30 * 24 * 3600
"""If all else fails."""


@contextmanager
def passing_key(database: Database, job: Job) -> Iterator[str]:
    """The key's text."""
    name = f"job {job.id}"
    with database.write() as connection:
        keys.revoke_named(connection, name, job.project)
        giver = None if job.key is None else keys.get(connection, job.key, job.project)
        _, text = keys.create(
            connection, name, project=job.project, role="member", scopes=SCOPES[job.kind],
            models=None if giver is None else giver.models, limits=None if giver is None else giver.limits,
            expires=unix_now() + LONGEST_SECONDS, payer=job.key,
        )
    try:
        yield text
    finally:
        with database.write() as connection:
            keys.revoke_named(connection, name, job.project)
