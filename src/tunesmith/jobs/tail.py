"""events.jsonl -> rows: what a worker wrote becomes events and metrics, each once. Does not know who runs the worker.

The rows and the offset up to which the file was read are written in one transaction, under the job's fence; so a kill between
two reads neither loses an event nor stores one twice.
"""

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, update

from tunesmith.db import attempts, events, metrics
from tunesmith.db.events import JobEvent, Level
from tunesmith.db.jobs import Job, get
from tunesmith.db.session import Database
from tunesmith.db.tables import jobs
from tunesmith.errors import Fenced
from tunesmith.runfolder import Event, RunFolder, read_events

LEVELS: dict[str, Level] = {"warning": "warn", "resumed": "warn", "error": "error"}
"""Event type -> OpenAI's level, where it is not info."""


def _progress(event: Event) -> str:
    return f"Step {event['step']}/{event['total_steps']}" if event.get("total_steps") else f"Step {event['step']}"


def _loss(event: Event) -> str:
    return "none" if event.get("loss") is None else f"{event['loss']:.2f}"


MESSAGES: dict[str, Callable[[Event], str]] = {
    "phase": lambda event: str(event.get("message") or event["phase"]),
    "step": lambda event: f"{_progress(event)}: training loss={_loss(event)}",
    "eval": lambda event: f"{_progress(event)}: validation loss={_loss(event)}",
    "checkpoint": lambda event: f"Checkpoint created at step {event['step']}",
    "resumed": lambda event: f"Resumed from the checkpoint at step {event['step']}",
    "paused": lambda event: f"Paused at step {event['step']}",
    "cancelled": lambda event: f"Stopped at step {event['step']}",
    "result": lambda event: "Training finished",
}
"""Event type -> the line that OpenAI's client shows; other types say their `message`."""


class Tail:
    """Reads one attempt's events into rows."""

    def __init__(self, database: Database, folder: RunFolder, job: Job, attempt: int):
        self._database = database
        self._path = folder.events_file(attempt)
        self._job, self._attempt = job, attempt
        self._offset = 0

    def read(self) -> list[Event]:
        """Stores what is new and returns it. Raises Fenced when the job is another supervisor's."""
        if not self._path.exists() or self._path.stat().st_size <= self._offset:
            return []
        with self._database.write() as connection:
            if get(connection, self._job.id).lease_token != self._job.lease_token:
                raise Fenced(f"Another supervisor holds job {self._job.id}.")
            stored = attempts.offset(connection, self._job.id, self._attempt)
            found = read_events(self._path, stored)
            for event in found.events:
                _store(connection, self._job.id, self._attempt, _finite(event))
            attempts.set_offset(connection, self._job.id, self._attempt, found.offset)
        self._offset = found.offset
        return found.events


def _store(connection: Connection, job_id: str, attempt: int, event: Event) -> None:
    kind, seq, when = event["type"], event["seq"], event["time"]
    payload = {key: value for key, value in event.items() if key not in {"type", "seq", "time"}}
    message = MESSAGES[kind](event) if kind in MESSAGES else str(event.get("message") or kind)
    row = JobEvent(job_id, attempt, seq, kind, message, when, LEVELS.get(kind, "info"), payload)
    if not events.add(connection, row):
        return
    if kind == "step":
        _store_step(connection, row)
    elif kind == "eval":
        metrics.set_validation(connection, job_id, payload["step"], payload.get("loss"), payload.get("token_accuracy"))
    elif kind == "resumed":
        metrics.supersede(connection, job_id, after_step=payload["step"], before_attempt=attempt)


def _store_step(connection: Connection, row: JobEvent) -> None:
    payload = row.payload
    step = metrics.StepMetrics(
        row.job_id,
        row.attempt,
        row.seq,
        payload["step"],
        loss=payload.get("loss"),
        learning_rate=payload.get("learning_rate"),
        token_accuracy=payload.get("token_accuracy"),
    )
    metrics.add(connection, step)
    eta = payload.get("eta_seconds")
    if eta is not None:
        connection.execute(update(jobs).where(jobs.c.id == row.job_id).values(estimated_finish=int(row.time + eta)))


def _finite(event: Event) -> dict[str, Any]:
    """JSON has no NaN: a number that is not finite becomes None."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in event.items()}
