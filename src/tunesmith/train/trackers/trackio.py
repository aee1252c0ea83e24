"""A run of Trackio's, in its database on this machine: `trackio show --project PROJECT`."""

from collections.abc import Iterator
from contextlib import contextmanager

import trackio

from tunesmith.recipes.run import Recipe
from tunesmith.recipes.tracking import Trackio
from tunesmith.runfolder import RunFolder
from tunesmith.train.tracking import Log

NAME = "Trackio"
ERRORS = (OSError, ValueError)


@contextmanager
def started(wanted: Trackio, number: int, recipe: Recipe, folder: RunFolder) -> Iterator[Log]:
    run = trackio.init(
        project=wanted.project,
        name=wanted.name or folder.root.name,
        config={"base": recipe.base, "quantization": recipe.quantization} | recipe.method.model_dump(mode="json"),
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    try:
        yield lambda numbers, step: run.log(numbers, step=step)
    finally:
        run.finish()
