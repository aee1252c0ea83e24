"""A run of MLflow's, on the server or in the database that MLFLOW_TRACKING_URI names; found again by a tag when a job goes on."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from tunesmith.recipes.run import Recipe
from tunesmith.recipes.tracking import Mlflow
from tunesmith.runfolder import RunFolder
from tunesmith.train.tracking import Log

NAME = "MLflow"
ERRORS = (MlflowException,)
TAG = "tunesmith.job"
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow's own is minutes, in which a run that wants to begin would wait; read at each request."""


@contextmanager
def started(wanted: Mlflow, number: int, recipe: Recipe, folder: RunFolder) -> Iterator[Log]:
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    client = MlflowClient()
    run = _run(client, wanted, f"{folder.root.name}-{number}", wanted.name or folder.root.name, recipe).info.run_id

    def log(numbers: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

    yield log
    client.set_terminated(run)


def _run(client: MlflowClient, wanted: Mlflow, job: str, name: str, recipe: Recipe) -> Run:
    known = client.get_experiment_by_name(wanted.project)
    experiment = client.create_experiment(wanted.project) if known is None else known.experiment_id
    found = client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{job}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0]
    run = client.create_run(experiment, run_name=name, tags={TAG: job, "tunesmith.base": recipe.base})
    numbers = {"base": recipe.base, "quantization": recipe.quantization} | recipe.method.model_dump(mode="json")
    client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in numbers.items()])
    return run
