"""Where a run's numbers go beside its own events: Weights & Biases, if the recipe says so. Off by default. Sends nothing."""

import importlib.util
import os
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipes.method import Part

SETTINGS = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL")
"""Environment variables of wandb's; one of them must be set, for nothing is sent that nobody configured."""


class Wandb(Part):
    """A run of Weights & Biases, as OpenAI's `integrations` name it."""

    type: Literal["wandb"] = "wandb"
    """The only service that there is."""
    project: Annotated[str, Field(min_length=1, max_length=128)]
    """The project there."""
    name: Annotated[str, Field(max_length=128)] | None = None
    """The run's name; the job's id when left out."""
    entity: Annotated[str, Field(max_length=128)] | None = None
    """The team or user; the key's own when left out."""
    tags: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=50)] = ()
    """Beside `tunesmith/finetune`, the base and the job's id."""


def lacking() -> str | None:
    """What must be installed or set here before a run can be tracked; None when nothing is missing."""
    if importlib.util.find_spec("wandb") is None:
        return "Install it beside the server: pip install 'tunesmith[wandb]'."
    if not any(os.environ.get(name) for name in SETTINGS):
        return "Set WANDB_API_KEY in the server's environment (or WANDB_MODE=offline)."
    return None
