"""What is said of jobs, by kind: the lines of their logs (fine-tuning's are OpenAI's), what clients call them, and their events.

Plain tables; they know no rows.
"""

from tunesmith.db.jobs import Job
from tunesmith.types import JobKind

LINES: dict[JobKind, dict[str, str]] = {
    "fine_tuning": {
        "created": "Created fine-tuning job: {id}",
        "validating": "Validating training file: {training_file}",
        "started": "Fine-tuning job started",
        "paused": "Fine-tuning job paused",
        "resumed": "Fine-tuning job resumed, moving job to queued state",
        "cancelled": "Fine-tuning job cancelled",
    },
    "batch": {
        "created": "Created batch: {id}",
        "validating": "Validating input file: {input_file_id}",
        "started": "Batch started",
        "cancelling": "Batch is being cancelled: requests under way are finished",
        "cancelled": "Batch cancelled",
    },
    "eval_run": {
        "created": "Created eval run: {id}",
        "validating": "Preparing the eval run",
        "started": "Eval run started",
        "cancelled": "Eval run cancelled",
    },
}
"""Kind -> moment -> line; in braces stands the job's id, or a key of its order. A kind without `paused` is never paused."""

PARAM: dict[JobKind, str] = {"fine_tuning": "fine_tuning_job_id", "batch": "batch_id", "eval_run": "run_id"}
"""OpenAI's name for a job's id, by kind."""

EVENTS: dict[JobKind, dict[str, str]] = {
    "fine_tuning": {
        "succeeded": "fine_tuning.job.succeeded", "failed": "fine_tuning.job.failed", "cancelled": "fine_tuning.job.cancelled",
    },
    "batch": {
        "succeeded": "batch.completed", "failed": "batch.failed", "expired": "batch.expired", "cancelled": "batch.cancelled",
    },
    "eval_run": {"succeeded": "eval.run.succeeded", "failed": "eval.run.failed", "cancelled": "eval.run.canceled"},
}
"""Kind -> how a job ended -> the webhook event that says so."""


def line(job: Job, moment: str) -> str:
    return LINES[job.kind][moment].format(**{**job.order, "id": job.id})


def event_type(job: Job) -> str:
    """The event of a job that has ended."""
    is_expired = (job.result or {}).get("outcome") == "expired"
    return EVENTS[job.kind]["expired" if is_expired else job.status]
