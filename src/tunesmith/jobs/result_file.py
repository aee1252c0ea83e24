"""A job's result file: its numbers step by step, as CSV with OpenAI's columns. Knows rows, not how they came."""

import csv
import io

from tunesmith.db.files import File
from tunesmith.db.jobs import Job
from tunesmith.db.metrics import StepMetrics, list_current
from tunesmith.db.session import Database
from tunesmith.store import BlobStore
from tunesmith.types import new_id, unix_now

NAME = "step_metrics.csv"
PURPOSE = "fine-tune-results"
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def make(database: Database, store: BlobStore, job: Job) -> File:
    """The file of a job that has ended, in the store, but not yet in the table. Raises StorageFull."""
    with database.read() as connection:
        blob = store.put([to_csv(list_current(connection, job.id))])
    return File(new_id("file"), NAME, PURPOSE, blob.num_bytes, blob.sha256, unix_now(), project=job.project)


def to_csv(steps: list[StepMetrics]) -> bytes:
    """One row per step; what was not measured at it is empty. Losses have five decimals, as OpenAI's."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for step in steps:
        numbers = (step.loss, step.token_accuracy, step.valid_loss, step.valid_token_accuracy)
        rows.writerow([step.step, *("" if number is None else round(number, 5) for number in numbers)])
    return text.getvalue().encode()
