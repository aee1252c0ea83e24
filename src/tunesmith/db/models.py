"""Fine-tuned models: an adapter by name, the base it needs, and where it lies. Does not load anything."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from tunesmith.db.tables import models
from tunesmith.errors import NotFound
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


def from_row(row: Row[Any]) -> FineTuned:
    values = dict(row._mapping)
    del values["num"]
    return FineTuned(**values)


def to_row(model: FineTuned) -> dict[str, Any]:
    return asdict(model)


def add(connection: Connection, model: FineTuned) -> None:
    connection.execute(insert(models).values(to_row(model)))


def find(connection: Connection, model_id: str) -> FineTuned | None:
    row = connection.execute(select(models).where(models.c.id == model_id)).first()
    return None if row is None else from_row(row)


def get(connection: Connection, model_id: str) -> FineTuned:
    """Raises NotFound with OpenAI's code."""
    model = find(connection, model_id)
    if model is None:
        raise NotFound(
            f"The model {model_id[:200]!r} does not exist.",
            hint="`tunesmith models list` shows what there is.",
            param="model",
            code="model_not_found",
        )
    return model


def list_all(connection: Connection) -> list[FineTuned]:
    """Oldest first."""
    return [from_row(row) for row in connection.execute(select(models).order_by(models.c.num))]


def remove(connection: Connection, model_id: str) -> FineTuned:
    """The model that was. Raises NotFound."""
    model = get(connection, model_id)
    connection.execute(delete(models).where(models.c.id == model_id))
    return model
