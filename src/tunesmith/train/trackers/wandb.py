"""A run of Weights & Biases. Its own process sends; WANDB_MODE=offline keeps the numbers in the run folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import wandb

from tunesmith.recipes.run import Recipe
from tunesmith.recipes.tracking import Wandb
from tunesmith.runfolder import RunFolder
from tunesmith.train.tracking import Log

NAME = "Weights & Biases"
ERRORS = (wandb.Error,)


@contextmanager
def started(wanted: Wandb, number: int, recipe: Recipe, folder: RunFolder) -> Iterator[Log]:
    os.environ.pop("WANDB_DISABLED", None)  # set for all other libraries
    job = folder.root.name
    with wandb.init(
        project=wanted.project,
        name=wanted.name or job,
        entity=wanted.entity,
        tags=[*wanted.tags, "tunesmith/finetune", f"tunesmith/{recipe.base}"[:64], f"tunesmith/{job}"[:64]],
        id=f"{job}-{number}",
        resume="allow",
        dir=folder.root,
        config=recipe.model_dump(mode="json"),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, x_disable_meta=True),
    ) as run:
        yield lambda numbers, step: run.log(numbers | {"step": step}, step=step)
