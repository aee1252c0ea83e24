"""Where a run's numbers go beside its own events: nowhere, unless the recipe names services. Off by default. Sends nothing.

`TRACKERS` is the table of what there is: a recipe takes what it holds, and `train/trackers/` has a file for each.
"""

import importlib.util
import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from tunesmith.recipes.method import Part, by_type


class Tracker(Part):
    """A service that is told a run's numbers, or a place on this machine."""

    type: str
    """The kind of service."""


class Wandb(Tracker):
    """A run of Weights & Biases, as OpenAI's `integrations` name it."""

    type: Literal["wandb"] = "wandb"
    """The kind of service."""
    project: Annotated[str, Field(min_length=1, max_length=128)]
    """The project there."""
    name: Annotated[str, Field(max_length=128)] | None = None
    """The run's name; the job's id when left out."""
    entity: Annotated[str, Field(max_length=128)] | None = None
    """The team or user; the key's own when left out."""
    tags: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=50)] = ()
    """Beside `tunesmith/finetune`, the base and the job's id."""


class Mlflow(Tracker):
    """A run of an MLflow server, or of its database on this machine (`MLFLOW_TRACKING_URI=sqlite:////somewhere/mlflow.db`)."""

    type: Literal["mlflow"] = "mlflow"
    """The kind of service."""
    project: Annotated[str, Field(min_length=1, max_length=128)]
    """The experiment there; it is made when there is none of that name."""
    name: Annotated[str, Field(max_length=128)] | None = None
    """The run's name; the job's id when left out."""


class TensorBoard(Tracker):
    """Event files for TensorBoard, in the run's own folder `tensorboard`."""

    type: Literal["tensorboard"] = "tensorboard"
    """The kind of service."""


class Trackio(Tracker):
    """A run of Trackio's on this machine: `trackio show --project PROJECT`, from TRACKIO_DIR if that is set."""

    type: Literal["trackio"] = "trackio"
    """The kind of service."""
    project: Annotated[str, Field(min_length=1, max_length=128)]
    """The project there."""
    name: Annotated[str, Field(max_length=128)] | None = None
    """The run's name; the job's id when left out."""


TRACKERS: dict[str, type[Tracker]] = {"wandb": Wandb, "mlflow": Mlflow, "tensorboard": TensorBoard, "trackio": Trackio}
"""An entry's `type` in a recipe's `tracking` -> its fields. The first is the default."""


SETTINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "wandb": (
        ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"),
        "Set WANDB_API_KEY in the server's environment (or WANDB_MODE=offline).",
    ),
    "mlflow": (("MLFLOW_TRACKING_URI",), "Set MLFLOW_TRACKING_URI to the address of a server, or to sqlite:////FILE."),
}
"""Service -> environment variables of which one must be set, for nothing is sent that nobody configured, and what to do."""


def _known(value: Any) -> Any:
    return by_type(value, TRACKERS, "tracking service")


AnyTracker = Annotated[SerializeAsAny[Tracker], BeforeValidator(_known)]


def lacking(tracker: Tracker) -> str | None:
    """What must be installed or set here before a run can be tracked so; None when nothing is missing."""
    if importlib.util.find_spec(tracker.type) is None:
        return f"Install it beside the server: pip install 'tunesmith[{tracker.type}]'."
    names, hint = SETTINGS.get(tracker.type, ((), ""))
    return hint if names and not any(os.environ.get(name) for name in names) else None
