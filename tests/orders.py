"""Rows of fine-tuning jobs, for tests that need one and do not care what it says."""

from typing import Any

from tunesmith.db.jobs import Job

RECIPE = {"seed": 1, "quantization": "none", "checkpoints": {"adapters": 3}}


def tuning_job(job_id: str, *, base: str = "tunesmith/tiny", recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
    """`order` adds to, or replaces, what the client asked for."""
    order = {"model": base, "training_file": "file-1", "validation_file": None, "suffix": None, "hyperparameters": {}}
    order |= fields.pop("order", {})
    return Job(job_id, recipe or RECIPE | {"base": base}, order, fields.pop("created", 1), **fields)
