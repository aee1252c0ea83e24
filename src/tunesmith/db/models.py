"""Fine-tuned models by name: an adapter, the base it needs, and where it lies. Does not load anything.

A name is a model's own, `{model}:ckpt-step-{step}` for the adapter of one of its epochs, or an alias of either. Who may use it:
its project, and those that have a permission.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from tunesmith.db import aliases, checkpoints, permissions
from tunesmith.db.checkpoints import Checkpoint
from tunesmith.db.tables import models
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.types import DEFAULT_PROJECT, Quantization


@dataclass(frozen=True)
class FineTuned:
    """`id` is `ft:{base}:{organization}:{suffix}:{8 characters}`; `path` is relative to the data directory."""

    id: str
    base: str
    quantization: Quantization
    path: str
    content_hash: str
    job_id: str
    created: int
    project: str = DEFAULT_PROJECT

    @property
    def is_checkpoint(self) -> bool:
        return ":ckpt-step-" in self.id


def from_row(row: Row[Any]) -> FineTuned:
    values = dict(row._mapping)
    del values["num"]
    return FineTuned(**values)


def from_checkpoint(row: Checkpoint) -> FineTuned:
    """A checkpoint is a model like another."""
    return FineTuned(row.model, row.base, row.quantization, row.path, row.content_hash, row.job_id, row.created, row.project)


def to_row(model: FineTuned) -> dict[str, Any]:
    return asdict(model)


def add(connection: Connection, model: FineTuned) -> None:
    connection.execute(insert(models).values(to_row(model)))


def find(connection: Connection, name: str, project: str) -> FineTuned | None:
    """What `project` means by a name, or None where there is nothing that it may use."""
    model = _named(connection, name)
    if model is None and (alias := aliases.find(connection, project, name)) is not None:
        model = _named(connection, alias.model)
    if model is None or model.project == project or permissions.is_granted(connection, model.id, project):
        return model
    return None


def _named(connection: Connection, model_id: str) -> FineTuned | None:
    row = connection.execute(select(models).where(models.c.id == model_id)).first()
    if row is not None:
        return from_row(row)
    checkpoint = checkpoints.find(connection, model_id)
    return None if checkpoint is None else from_checkpoint(checkpoint)


def get(connection: Connection, name: str, project: str) -> FineTuned:
    """Raises NotFound with OpenAI's code."""
    model = find(connection, name, project)
    if model is None:
        raise _unknown(name)
    return model


def get_own(connection: Connection, model_id: str, project: str) -> FineTuned:
    """A model that the project owns, by its own name. Raises NotFound."""
    model = _named(connection, model_id)
    if model is None or model.project != project:
        raise _unknown(model_id)
    return model


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"The model {name[:200]!r} does not exist.",
        hint="`tunesmith models list` shows what there is.",
        param="model",
        code="model_not_found",
    )


def list_all(connection: Connection, project: str | None = None) -> list[FineTuned]:
    """Of a project, or of all; oldest first. Checkpoints are listed with their job."""
    where = [] if project is None else [models.c.project == project]
    return [from_row(row) for row in connection.execute(select(models).where(*where).order_by(models.c.num))]


def remove(connection: Connection, model_id: str, project: str) -> list[FineTuned]:
    """The model and its checkpoints, or a checkpoint alone, as they were.

    Raises NotFound, and InvalidRequest for what an alias names.
    """
    model = get_own(connection, model_id, project)
    made = [] if model.is_checkpoint else [from_checkpoint(row) for row in checkpoints.remove_of_job(connection, model.job_id)]
    gone = [model, *made]
    for each in gone:
        if named := aliases.list_of(connection, each.id):
            raise InvalidRequest(
                f"The alias {named[0].name} answers as {each.id}.", hint="Move or delete the alias first.", param="model",
                code="model_in_use",
            )
        permissions.forget(connection, each.id)
    connection.execute(delete(models).where(models.c.id == model_id))
    checkpoints.remove(connection, model_id)
    return gone
