"""Models and engines on the wire. Of a fine-tuned one we also say what it stands on: base, quantization, job and content hash."""

from pathlib import Path
from typing import Literal

from tunesmith.db.models import FineTuned
from tunesmith.schemas.common import ORGANIZATION, Wire


class Model(Wire):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    base: str | None = None
    quantization: str | None = None
    job_id: str | None = None
    content_hash: str | None = None


def from_base(base_id: str, folder: Path) -> Model:
    """A base whose files lie in `folder`; it was created when they came to this machine."""
    created = int((folder / "config.json").stat().st_mtime)
    return Model(id=base_id, created=created, owned_by=base_id.partition("/")[0] or ORGANIZATION)


def from_row(model: FineTuned) -> Model:
    return Model(
        id=model.id,
        created=model.created,
        owned_by=ORGANIZATION,
        base=model.base,
        quantization=model.quantization,
        job_id=model.job_id,
        content_hash=model.content_hash,
    )


class EngineStatus(Wire):
    """One engine of a base, and what it does."""

    base: str
    quantization: str
    replica: int
    status: Literal["down", "loading", "ready", "draining"]
    progress: float
    """Of its start, from 0 to 1."""
    stage: str
    running: int
    waiting: int
