"""The queue: who may do what to a job, in which state. Every change is one transaction, and says so in the job's log.

    validating_files --accept--> queued --claim--> running --succeed--> succeeded
           |                       ^  |               |  |
           +--fail--> failed       |  +--pause--> paused  +--fail--> failed
                                   +-----resume------+
    cancel leads from every state that is not final to `cancelled`, at once; but a batch that has begun keeps what it has: its
    worker is told, and `finish` ends it as cancelled.

A claim is a lease: it holds until `lease_until` and is kept by heartbeats. Its token is a fence: a supervisor that lost its lease
changes nothing any more (Fenced). Claiming takes two statements, each served by an index: an OR of both would sort the table.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, func, select, update

from tunesmith.db import events, webhooks
from tunesmith.db.jobs import Job, add, from_row, get
from tunesmith.db.session import Database
from tunesmith.db.tables import jobs
from tunesmith.errors import Fenced, InvalidRequest
from tunesmith.jobs.outcomes import Outcome
from tunesmith.jobs.words import LINES, PARAM, event_type, line
from tunesmith.types import JobKind

NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_token": None, "lease_until": None}


class Queue:
    """`lease_seconds` is how long a claim holds without a heartbeat; `clock` gives seconds since 1970."""

    def __init__(self, database: Database, *, lease_seconds: float = 30.0, clock: Callable[[], float] = time.time):
        self.database = database
        self.lease_seconds = lease_seconds
        self._clock = clock

    # -- orders, by clients -------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Job:
        with self.database.write() as connection:
            add(connection, job)
            events.say(connection, job.id, line(job, "created"))
            events.say(connection, job.id, line(job, "validating"))
            return get(connection, job.id)

    def cancel(self, job_id: str) -> Job:
        """Final at once; a worker that runs is told, and publishes nothing. Where there is a way to cancel slowly, a job that has
        begun is still running when this returns. Raises NotFound, InvalidRequest when finished."""
        with self.database.write() as connection:
            job = self._open_job(connection, job_id, "cancelled")
            if "cancelling" not in LINES[job.kind] or job.attempt == 0:
                return self._end(connection, job, line(job, "cancelled"), status="cancelled", wanted="cancel")
            if job.wanted == "cancel":
                return job
            events.say(connection, job_id, line(job, "cancelling"))
            return self._set(connection, job, wanted="cancel", result=(job.result or {}) | {"cancelling_at": self._now()})

    def pause(self, job_id: str) -> Job:
        """A waiting job pauses at once, a running one at its next checkpoint. Raises NotFound, InvalidRequest when finished."""
        with self.database.write() as connection:
            job = self._open_job(connection, job_id, "paused")
            if job.status == "queued":
                events.say(connection, job_id, line(job, "paused"))
                return self._set(connection, job, status="paused", wanted="pause")
            return self._set(connection, job, wanted="pause")

    def resume(self, job_id: str) -> Job:
        """Back to the queue, to go on from the newest checkpoint. Raises NotFound, InvalidRequest when finished."""
        with self.database.write() as connection:
            job = self._open_job(connection, job_id, "resumed")
            if job.status == "paused":
                events.say(connection, job_id, line(job, "resumed"))
                return self._set(connection, job, status="queued", wanted="run")
            return self._set(connection, job, wanted="run")

    # -- work, by supervisors -----------------------------------------------------------------------------------------

    def claim_unchecked(self, owner: str, kind: JobKind = "fine_tuning") -> Job | None:
        """The oldest job of a kind whose files nobody has validated or is validating."""
        free = jobs.c.lease_until.is_(None) | (jobs.c.lease_until < self._clock())
        unchecked = (jobs.c.kind == kind, jobs.c.status == "validating_files")
        if not self._are_any(_first(*unchecked, free, order=jobs.c.num))[0]:
            return None
        with self.database.write() as connection:
            return self._claim(connection, owner, *unchecked, free, order=jobs.c.num)

    def accept(self, job: Job, *, num_rows: int, facts: dict[str, Any] | None = None) -> Job:
        """The files are valid; `facts` are the first of the job's result. Raises Fenced."""
        with self.database.write() as connection:
            mine = self._held(connection, job, "validating_files")
            status = "paused" if mine.wanted == "pause" else "queued"
            events.say(connection, job.id, f"Files validated, moving job to {status} state", num_rows=num_rows)
            return self._set(connection, mine, status=status, result=facts or mine.result, **NO_LEASE)

    def claim(self, owner: str, kind: JobKind = "fine_tuning") -> Job | None:
        """A job of a kind to run, with a new attempt and token: one whose lease ran out, else the one that waits longest."""
        waiting = (jobs.c.kind == kind, jobs.c.status == "queued")
        expired = _first(*self._expired(kind), order=jobs.c.lease_until)
        is_expired, is_waiting = self._are_any(expired, _first(*waiting, order=jobs.c.num))
        if not is_expired and not is_waiting:
            return None
        with self.database.write() as connection:
            while is_expired and (job := self._claim_expired(connection, owner, kind)):
                if job.crashes < job.max_attempts:
                    events.say(connection, job.id, f"Attempt {job.attempt} takes over: the supervisor was lost", "warn")
                    return job
                self._fail(connection, job, _worn_out(job, "its supervisor was lost"))
            begun = {"attempt": jobs.c.attempt + 1, "started": func.coalesce(jobs.c.started, self._now())}
            waiter = self._claim(connection, owner, *waiting, order=jobs.c.num, status="running", **begun)
            if waiter is not None and waiter.attempt == 1:
                events.say(connection, waiter.id, line(waiter, "started"))
            return waiter

    def look(self, job: Job) -> Job:
        """The job as it is now. Raises Fenced when another holds it."""
        with self.database.read() as connection:
            return self._held(connection, job)

    def heartbeat(self, job: Job) -> Job:
        """Keeps the lease. Raises Fenced when another holds it."""
        with self.database.write() as connection:
            return self._set(connection, self._held(connection, job), lease_until=self._clock() + self.lease_seconds)

    def retry(self, job: Job, reason: str) -> Job | None:
        """A new attempt under the same lease, after a crash; None when it was one crash too many. Raises Fenced."""
        with self.database.write() as connection:
            mine = self._held(connection, job, "running")
            mine = self._set(connection, mine, crashes=mine.crashes + 1)
            if mine.crashes >= mine.max_attempts:
                self._fail(connection, mine, _worn_out(mine, reason))
                return None
            events.say(connection, job.id, f"Attempt {mine.attempt} ended: {reason}; attempt {mine.attempt + 1} begins", "warn")
            until = self._clock() + self.lease_seconds
            return self._set(connection, mine, attempt=mine.attempt + 1, lease_token=_token(), lease_until=until)

    def release(self, job: Job) -> Job:
        """Back to the queue without blame, because the supervisor stops. Raises Fenced."""
        with self.database.write() as connection:
            return self._set(connection, self._held(connection, job, "running"), status="queued", **NO_LEASE)

    def interrupted(self, job: Job) -> Job:
        """The worker saved its work and left, for its machine is taken away: back to the queue without blame. Raises Fenced."""
        with self.database.write() as connection:
            events.say(connection, job.id, f"Attempt {job.attempt} was interrupted; another one goes on", "warn")
        return self.paused(job)

    def paused(self, job: Job) -> Job:
        """The worker wrote its checkpoint and left; to the queue again if it was resumed meanwhile. Raises Fenced."""
        with self.database.write() as connection:
            mine = self._held(connection, job, "running")
            status = "paused" if mine.wanted == "pause" else "queued"
            return self._set(connection, mine, status=status, **NO_LEASE)

    def let_go(self, job: Job) -> None:
        """The worker of a cancelled job is gone. Raises Fenced."""
        with self.database.write() as connection:
            self._set(connection, self._held(connection, job, "cancelled"), **NO_LEASE)

    def fail(self, job: Job, error: dict[str, Any]) -> Job:
        """`error` has code, message and param. Raises Fenced, also when the job was cancelled."""
        with self.database.write() as connection:
            return self._fail(connection, self._held(connection, job, "running", "validating_files"), error)

    def finish(self, job: Job, outcome: Outcome) -> Job:
        """Registers what the run made and ends the job, all or nothing. Raises Fenced, also when the job was cancelled."""
        with self.database.write() as connection:
            mine = self._held(connection, job, "running")
            outcome.register(connection)
            for said in outcome.said[:-1]:
                events.say(connection, job.id, said)
            result = (mine.result or {}) | outcome.result
            return self._end(connection, mine, outcome.said[-1], status=outcome.status, result=result, **NO_LEASE)

    def expire(self, is_alive: Callable[[str], bool]) -> int:
        """Ends the leases of owners that are known to be dead, so that nobody waits for them to run out; how many."""
        with self.database.write() as connection:
            held = connection.execute(select(jobs.c.id, jobs.c.lease_owner).where(jobs.c.lease_owner.is_not(None))).all()
            dead = [row.id for row in held if not is_alive(row.lease_owner)]
            connection.execute(update(jobs).where(jobs.c.id.in_(dead)).values(lease_until=0.0))
            return len(dead)

    # -- one floor down -----------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self._clock())

    def _are_any(self, *firsts: ScalarSelect[int]) -> list[bool]:
        """Is there each of these jobs? A look before a transaction that writes: lanes with nothing to do keep nobody waiting."""
        with self.database.read() as connection:
            return [num is not None for num in connection.execute(select(*firsts)).one()]

    def _expired(self, kind: JobKind) -> tuple[ColumnElement[bool], ...]:
        return jobs.c.kind == kind, jobs.c.status == "running", jobs.c.lease_until < self._clock()

    def _claim(
        self, connection: Connection, owner: str, *where: ColumnElement[bool], order: ColumnElement[Any], **values: Any
    ) -> Job | None:
        first = _first(*where, order=order)
        lease = {"lease_owner": owner, "lease_token": _token(), "lease_until": self._clock() + self.lease_seconds}
        row = connection.execute(update(jobs).where(jobs.c.num == first).values(**values, **lease).returning(jobs)).first()
        return None if row is None else from_row(row)

    def _claim_expired(self, connection: Connection, owner: str, kind: JobKind) -> Job | None:
        tried = {"attempt": jobs.c.attempt + 1, "crashes": jobs.c.crashes + 1}
        return self._claim(connection, owner, *self._expired(kind), order=jobs.c.lease_until, **tried)

    def _open_job(self, connection: Connection, job_id: str, participle: str) -> Job:
        job = get(connection, job_id)
        if job.is_finished:
            raise InvalidRequest(
                f"Job {job_id} has already {job.status} and cannot be {participle}.",
                hint="Create a new job.",
                param=PARAM[job.kind],
                code="job_finished",
            )
        return job

    def _held(self, connection: Connection, job: Job, *states: str) -> Job:
        found = get(connection, job.id)
        if found.lease_token is None or found.lease_token != job.lease_token:
            raise Fenced(f"Another supervisor holds job {job.id}.")
        if states and found.status not in states:
            raise Fenced(f"Job {job.id} is {found.status} now.")
        return found

    def _set(self, connection: Connection, job: Job, **values: Any) -> Job:
        row = connection.execute(update(jobs).where(jobs.c.id == job.id).values(**values).returning(jobs)).one()
        return from_row(row)

    def _fail(self, connection: Connection, job: Job, error: dict[str, Any]) -> Job:
        values = {"status": "failed", "error": error, **NO_LEASE}
        return self._end(connection, job, f"The job failed: {error['message']}", "error", {"error": error}, **values)

    def _end(
        self, connection: Connection, job: Job, said: str, level: events.Level = "info",
        payload: dict[str, Any] | None = None, **values: Any
    ) -> Job:
        """The one way to a final state: the log says so, and so does a webhook event, in the same transaction."""
        events.say(connection, job.id, said, level, **(payload or {}))
        ended = self._set(connection, job, finished=self._now(), **values)
        webhooks.tell(connection, ended.project, event_type(ended), ended.id)
        return ended


def _first(*where: ColumnElement[bool], order: ColumnElement[Any]) -> ScalarSelect[int]:
    """The number of the first job in an order that an index has."""
    return select(jobs.c.num).where(*where).order_by(order).limit(1).scalar_subquery()


def _token() -> str:
    return secrets.token_hex(16)


def _worn_out(job: Job, reason: str) -> dict[str, Any]:
    message = f"The worker died {job.crashes} times; the last time {reason}. Its logs lie in the run folder's attempts/."
    return {"code": "worker_crashed", "message": message, "param": None}
