"""Jobs as rows: fine-tuning, batches and eval runs alike. Who may change which field, and when, is jobs/queue.py's matter."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, String, cast, func, insert, select

from tunesmith.db.paging import page
from tunesmith.db.tables import jobs
from tunesmith.errors import NotFound
from tunesmith.types import DEFAULT_PROJECT, TERMINAL, JobKind, JobStatus, Wanted

MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Job:
    """One order. `order` is what the client asked for, for the echo; `recipe` is all that a worker needs, as JSON; `parent` is
    what it belongs to (an eval run's eval); `key` is the id of the API key that ordered it; `result` is what its worker made, and
    the names that the desk gave it.

    `attempt` counts tries from 1 and names the folder; `crashes` counts those that died, and ends the job at `max_attempts`.
    `lease_token` is new for each claim: who does not hold it writes nothing. Times are seconds since 1970.
    """

    id: str
    recipe: dict[str, Any]
    order: dict[str, Any]
    created: int
    kind: JobKind = "fine_tuning"
    project: str = DEFAULT_PROJECT
    parent: str | None = None
    status: JobStatus = "validating_files"
    wanted: Wanted = "run"
    metadata: dict[str, str] | None = None
    attempt: int = 0
    crashes: int = 0
    max_attempts: int = MAX_ATTEMPTS
    lease_owner: str | None = None
    lease_token: str | None = None
    lease_until: float | None = None
    started: int | None = None
    finished: int | None = None
    estimated_finish: int | None = None
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    key: str | None = None

    @property
    def is_finished(self) -> bool:
        return self.status in TERMINAL


def from_row(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    del values["num"]
    return Job(**values)


def to_row(job: Job) -> dict[str, Any]:
    return asdict(job)


def add(connection: Connection, job: Job) -> None:
    connection.execute(insert(jobs).values(to_row(job)))


def get(connection: Connection, job_id: str) -> Job:
    """Raises NotFound."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
    if row is None:
        raise _unknown(job_id)
    return from_row(row)


def _unknown(job_id: str) -> NotFound:
    hint = "`tunesmith jobs list` shows what there is."
    return NotFound(f"Could not find fine tune: {job_id[:80]}.", hint=hint, param="fine_tuning_job_id")


def get_own(connection: Connection, job_id: str, project: str, kind: JobKind = "fine_tuning") -> Job:
    """A project's job of a kind. Raises NotFound for any other as for one that is not there."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id, jobs.c.project == project, jobs.c.kind == kind)).first()
    if row is None:
        raise _unknown(job_id)
    return from_row(row)


def list_page(
    connection: Connection,
    *,
    after: str | None,
    limit: int,
    kind: JobKind = "fine_tuning",
    project: str | None = None,
    metadata: dict[str, str] | None = None,
    without_metadata: bool = False,
) -> tuple[list[Job], bool]:
    """Jobs of a kind, of a project or of all, newest first, and whether there are more.

    `metadata` keeps those that have all its pairs, `without_metadata` those that have none at all.
    """
    where: list[ColumnElement[bool]] = [jobs.c.metadata[key].as_string() == value for key, value in (metadata or {}).items()]
    where.append(jobs.c.kind == kind)
    if project is not None:
        where.append(jobs.c.project == project)
    if without_metadata:
        where.append(jobs.c.metadata.is_(None) | (cast(jobs.c.metadata, String) == "null"))
    found = page(connection, jobs, *where, after=after, limit=limit)
    return [from_row(row) for row in found.rows], found.has_more


def count_unfinished(connection: Connection, project: str, key: str | None) -> int:
    """Jobs of every kind that a key ordered and that have not ended; of the whole project when None."""
    mine = (jobs.c.project == project) & jobs.c.status.not_in(TERMINAL)
    if key is not None:
        mine &= jobs.c.key == key
    return connection.execute(select(func.count()).select_from(jobs).where(mine)).scalar_one()
