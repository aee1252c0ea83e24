"""events.jsonl -> rows: what a worker wrote becomes events and metrics, each once. Does not know who runs the worker.

The rows and the offset up to which the file was read are written in one transaction, under the job's fence; so a kill between
two reads neither loses an event nor stores one twice.
"""

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, update

from tunesmith.db import attempts, checkpoints, eval_runs, events, metrics
from tunesmith.db.checkpoints import Checkpoint
from tunesmith.db.events import JobEvent, Level
from tunesmith.db.jobs import Job, get
from tunesmith.db.session import Database
from tunesmith.db.tables import jobs
from tunesmith.errors import Fenced
from tunesmith.jobs.names import checkpoint_id, fine_tuned_id
from tunesmith.runfolder import Event, RunFolder, read_events

LEVELS: dict[str, Level] = {"warning": "warn", "resumed": "warn", "error": "error"}
"""Event type -> OpenAI's level, where it is not info."""


def _progress(event: Event) -> str:
    return f"Step {event['step']}/{event['total_steps']}" if event.get("total_steps") else f"Step {event['step']}"


def _loss(event: Event) -> str:
    return "none" if event.get("loss") is None else f"{event['loss']:.2f}"


def _measured(event: Event) -> str:
    """All held-out rows are measured each time: OpenAI's validation loss and full validation loss are one number here."""
    train = f"training loss={event['train_loss']:.2f}, " if event.get("train_loss") is not None else ""
    return f"{train}validation loss={_loss(event)}, full validation loss={_loss(event)}"


MESSAGES: dict[str, Callable[[Event], str]] = {
    "phase": lambda event: str(event.get("message") or event["phase"]),
    "step": lambda event: f"{_progress(event)}: training loss={_loss(event)}",
    "eval": lambda event: f"{_progress(event)}: {_measured(event)}",
    "adapter": lambda event: f"Checkpoint created at step {event['step']}",
    "checkpoint": lambda event: f"State saved at step {event['step']}, to resume from",
    "resumed": lambda event: f"Resumed from the checkpoint at step {event['step']}",
    "paused": lambda event: f"Paused at step {event['step']}",
    "interrupted": lambda event: f"Interrupted at step {event['step']}; what was done is saved",
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
                _store(connection, self._job, self._attempt, _finite(event))
            attempts.set_offset(connection, self._job.id, self._attempt, found.offset)
        self._offset = found.offset
        return found.events


def _store(connection: Connection, job: Job, attempt: int, event: Event) -> None:
    kind, seq, when = event["type"], event["seq"], event["time"]
    if kind == "progress":
        return _store_progress(connection, job.id, event)
    if kind == "item":
        return eval_runs.add_item(connection, eval_runs.item_from_event(job.id, event))
    if kind == "eval" and (step := metrics.find(connection, job.id, event["step"])) is not None:
        event |= {"train_loss": step.loss, "train_mean_token_accuracy": step.token_accuracy}
    payload = {key: value for key, value in event.items() if key not in {"type", "seq", "time"}}
    message = MESSAGES[kind](event) if kind in MESSAGES else str(event.get("message") or kind)
    row = JobEvent(job.id, attempt, seq, kind, message, when, LEVELS.get(kind, "info"), payload)
    if not events.add(connection, row):
        return
    if kind == "step":
        _store_step(connection, row)
    elif kind == "eval":
        metrics.set_validation(connection, job.id, payload["step"], payload.get("loss"), payload.get("token_accuracy"))
    elif kind == "resumed":
        metrics.supersede(connection, job.id, after_step=payload["step"], before_attempt=attempt)
    elif kind == "adapter":
        _register(connection, job, row)
    elif "hyperparameters" in payload and kind == "phase":
        chosen = {"hyperparameters": payload["hyperparameters"]}
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(result=chosen))


def _store_progress(connection: Connection, job_id: str, event: Event) -> None:
    """How far a batch or an eval run is: part of the job's result, and no line of its log, for it comes every second."""
    told = {key: value for key, value in event.items() if key not in {"type", "seq", "time"}}
    result = (get(connection, job_id).result or {}) | told
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(result=result))


def _register(connection: Connection, job: Job, row: JobEvent) -> None:
    """The adapter at an epoch's end answers under a name of its own; the oldest beyond what the recipe keeps does no more."""
    step, base = row.payload["step"], job.order["model"]
    checkpoints.put(connection, Checkpoint(
        job_id=job.id,
        step=step,
        model=checkpoint_id(fine_tuned_id(base, job.order["suffix"], job.id), step),
        base=base,
        quantization=job.recipe["quantization"],
        path=f"runs/{job.id}/{row.payload['path']}",
        content_hash=row.payload["content_hash"],
        created=int(row.time),
        project=job.project,
    ))  # fmt: skip
    checkpoints.keep_newest(connection, job.id, job.recipe["checkpoints"]["adapters"])


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
