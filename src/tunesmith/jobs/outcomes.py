"""What becomes of a run that has a result, by kind: rows that are registered when the job ends, in the same transaction.

Reads run folders and fills the store; knows no queue and no process.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from tunesmith.db import files, models
from tunesmith.db.files import File
from tunesmith.db.jobs import Job
from tunesmith.db.models import FineTuned
from tunesmith.errors import InvalidRequest, NotFound, TrainingFailed
from tunesmith.jobs import result_file
from tunesmith.jobs.checks import Place
from tunesmith.jobs.names import fine_tuned_id
from tunesmith.models.whole import read_trained
from tunesmith.types import JobKind, JobStatus, new_id, unix_now

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How the job ends, what is added to its result, the rows that come to be with it, what its log says of them, and what of the
    run folder is not needed any more."""

    result: dict[str, Any]
    status: JobStatus = "succeeded"
    models: list[FineTuned] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)

    def register(self, connection: Connection) -> None:
        for model in self.models:
            models.add(connection, model)
        for file in self.files:
            files.add(connection, file)


def tuned(job: Job, place: Place, result: dict[str, Any]) -> Outcome:
    """What the run made becomes a model, its numbers a file. Raises TrainingFailed for an adapter that cannot be read."""
    try:
        adapter = read_trained(place.folder(job).root / result["adapter"]["path"])
    except (NotFound, InvalidRequest) as error:
        raise TrainingFailed(str(error), code="adapter_invalid") from error
    model = FineTuned(
        id=fine_tuned_id(job.order["model"], job.order["suffix"], job.id),
        base=job.order["model"],
        quantization=adapter.quantization,
        path=str(Path(adapter.path).relative_to(place.dirs.root)),
        content_hash=adapter.content_hash,
        job_id=job.id,
        created=unix_now(),
        project=job.project,
    )
    numbers = result_file.make(place.database, place.store, job)
    said = [f"New fine-tuned model created: {model.id}", "The job has successfully completed"]
    names = {"fine_tuned_model": model.id, "result_files": [numbers.id]}
    return Outcome(result | names, models=[model], files=[numbers], said=said)


STATUS: dict[str, JobStatus] = {"completed": "succeeded", "expired": "failed", "cancelled": "cancelled"}
"""How a batch ended -> the job's word; that it expired, its result says."""


def answered(job: Job, place: Place, result: dict[str, Any]) -> Outcome:
    """Output and errors of a batch become files, and are nowhere else then: a client that deletes them has deleted them.

    Raises StorageFull.
    """
    folder, made, names = place.folder(job), [], {}
    leftovers = [folder.data_path(job.recipe["input"]), folder.artifacts / "answers.jsonl"]
    for key, name in (("output", "output_file_id"), ("errors", "error_file_id")):
        if result[key] is not None:
            path = folder.root / result[key]
            file = _store(job, place, path, f"{job.id}_{key.removesuffix('s')}.jsonl")
            made.append(file)
            leftovers.append(path)
            names[name] = file.id
    counts = result["request_counts"]
    said = f"Batch {result['outcome']}: {counts['completed']} of {counts['total']} requests answered, {counts['failed']} failed"
    return Outcome(result | names, STATUS[result["outcome"]], files=made, said=[said], leftovers=leftovers)


def _store(job: Job, place: Place, path: Path, filename: str) -> File:
    blob = place.store.put(_chunks(path))
    now, after = unix_now(), job.order.get("output_expires_after")
    expires = None if after is None else now + after["seconds"]
    return File(
        new_id("file"), filename, "batch_output", blob.num_bytes, blob.sha256, now, project=job.project, expires=expires
    )


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def measured(job: Job, place: Place, result: dict[str, Any]) -> Outcome:
    """An eval run's counts are its result."""
    return Outcome(result, said=["Eval run completed"])


OUTCOMES: dict[JobKind, Callable[[Job, Place, dict[str, Any]], Outcome]] = {
    "fine_tuning": tuned, "batch": answered, "eval_run": measured,
}
"""A job's kind -> what its worker's result becomes."""
