"""Sends a run's numbers to Weights & Biases under OpenAI's names, beside the events that it writes. Trains nothing.

A service that does not answer must not end a training: it becomes a warning, and the run goes on untracked.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import wandb

from tunesmith.recipes.run import Recipe
from tunesmith.recipes.tracking import Wandb
from tunesmith.runfolder import RunFolder

NAMES = {
    "step": {"loss": "train_loss", "token_accuracy": "train_mean_token_accuracy", "learning_rate": "learning_rate"},
    "eval": {"loss": "full_valid_loss", "token_accuracy": "full_valid_mean_token_accuracy"},
}
"""Event -> our name of a number -> OpenAI's."""

Emit = Callable[..., Any]


@contextmanager
def tracked(recipe: Recipe, folder: RunFolder, emit: Emit) -> Iterator[Emit]:
    """`emit`, which tells every run of `recipe.tracking` the numbers too. A resumed attempt goes on in the same runs."""
    os.environ.pop("WANDB_DISABLED", None)  # set for all other libraries
    with ExitStack() as stack:
        runs = []
        for number, wanted in enumerate(recipe.tracking):
            try:
                runs.append(stack.enter_context(_start(wanted, number, recipe, folder)))
            except wandb.Error as error:
                emit("warning", message=f"Weights & Biases cannot be reached, so this run is not tracked there: {error}")

        def told(type: str, **fields: Any) -> Any:
            numbers = {name: fields[ours] for ours, name in NAMES.get(type, {}).items() if ours in fields}
            for run in runs if numbers else ():
                run.log(numbers | {"step": fields["step"]}, step=fields["step"])
            return emit(type, **fields)

        yield told


def _start(wanted: Wandb, number: int, recipe: Recipe, folder: RunFolder) -> Any:
    job = folder.root.name
    return wandb.init(
        project=wanted.project,
        name=wanted.name or job,
        entity=wanted.entity,
        tags=[*wanted.tags, "tunesmith/finetune", f"tunesmith/{recipe.base}"[:64], f"tunesmith/{job}"[:64]],
        id=f"{job}-{number}",
        resume="allow",
        dir=folder.root,
        config=recipe.model_dump(mode="json"),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, x_disable_meta=True),
    )
