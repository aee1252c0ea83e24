"""Before a job is queued: its run folder, and whether it can be done at all, by kind. Knows no queue."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunesmith.db import files
from tunesmith.db.jobs import Job
from tunesmith.db.session import Database
from tunesmith.jobs import batch_input, prepare
from tunesmith.paths import DataDir
from tunesmith.recipes.batch import BatchRecipe
from tunesmith.recipes.run import parse, parse_as
from tunesmith.runfolder import RunFolder
from tunesmith.store import BlobStore
from tunesmith.types import JobKind


@dataclass(frozen=True)
class Place:
    """Where things lie: the data directory, the rows, the blobs; and how many examples a training file must have."""

    dirs: DataDir
    database: Database
    store: BlobStore
    min_examples: int

    def folder(self, job: Job) -> RunFolder:
        return RunFolder(self.dirs.run(job.id))

    def file(self, job: Job, file_id: str) -> files.File:
        """A file of the job's project. Raises NotFound."""
        with self.database.read() as connection:
            return files.get(connection, file_id, job.project)


@dataclass(frozen=True)
class Checked:
    """How many rows there are; `error`, where there is one, is what the client is told (code, message, param, more)."""

    num_rows: int
    error: dict[str, Any] | None = None
    facts: dict[str, Any] | None = None
    """What was learned about the job, and is part of its result from now on."""


def fine_tuning(job: Job, place: Place) -> Checked:
    """Raises InvalidRequest, NotFound, StorageFull."""
    recipe, folder = parse(job.recipe), place.folder(job)
    sources = []
    for param, key in (("training_file", "train"), ("validation_file", "validation")):
        if job.order.get(param) is not None:
            file = place.file(job, job.order[param])
            sources.append(prepare.Source(param, job.recipe["data"][key], file))
    prepare.lay_out(folder, recipe, sources, place.store)
    return Checked(prepare.check(folder, recipe, sources, min_examples=place.min_examples))


def batch(job: Job, place: Place) -> Checked:
    """Raises NotFound, StorageFull."""
    recipe, folder = parse_as(BatchRecipe, job.recipe), place.folder(job)
    file = place.file(job, job.order["input_file_id"])
    folder.create(recipe)
    target = folder.data_path(recipe.input)
    if not target.exists():
        place.store.fetch(file.sha256, target)
    found = batch_input.check(target, recipe.endpoint)
    facts = {"model": found.model, "request_counts": {"total": found.num_requests, "completed": 0, "failed": 0}}
    if found.problems:
        target.unlink()
        message = f"{len(found.problems)} problems in {file.filename}; the first: {found.problems[0]['message']}"
        return Checked(0, {"code": "invalid_input_file", "message": message, "param": "input_file_id", "data": found.problems})
    return Checked(found.num_requests, facts=facts)


def eval_run(job: Job, place: Place) -> Checked:
    """Its rows are the worker's matter: they may be stored answers, or ones that a model makes of a template."""
    place.folder(job).create_as(job.recipe)
    return Checked(0)


CHECKS: dict[JobKind, Callable[[Job, Place], Checked]] = {"fine_tuning": fine_tuning, "batch": batch, "eval_run": eval_run}
"""A job's kind -> what is looked at before it is queued."""
