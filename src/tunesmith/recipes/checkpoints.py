"""When a run's state is made durable, and where else it is kept. No torch, no network."""

from typing import Annotated

from pydantic import Field

from tunesmith.recipes.method import Part


class CheckpointRecipe(Part):
    """When state is made durable. A kill loses at most one interval."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps between two checkpoints; None means a twentieth of the run, at least 5 steps."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Checkpoints kept for resuming; older ones are deleted after a newer one is durable."""
    adapters: Annotated[int, Field(ge=1, le=100)] = 3
    """Adapters of the newest epochs that are kept to be served, as OpenAI keeps three."""
    sync: Annotated[str, Field(max_length=1024, pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/[^\s]*)?$")] | None = None
    """`s3://bucket/prefix`, S3-compatible storage that gets each checkpoint as it is made, under the name of the run's folder,
    and gives the newest whole one to a folder that has none. Keys and address are those of AWS's own tools."""
