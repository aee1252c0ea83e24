"""The table of training methods: a recipe's `method.type` -> the function that runs it."""

from collections.abc import Callable
from typing import Any

from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train import dpo, kto, orpo, reward, sft
from tunesmith.train.tools import Tools

METHODS: dict[str, Callable[[Recipe, RunFolder, Tools], dict[str, Any] | None]] = {
    "sft": sft.run, "dpo": dpo.run, "kto": kto.run, "orpo": orpo.run, "reward": reward.run,
}
"""Each returns the run's result, or None when it was paused or cancelled."""
