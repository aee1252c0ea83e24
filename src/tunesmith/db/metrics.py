"""Numbers of a job's optimizer steps. Each step has one current row; what a resumed attempt does again is superseded."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from tunesmith.db.tables import metrics


@dataclass(frozen=True)
class StepMetrics:
    """Losses are mean cross-entropies per trained token in nats; accuracies are fractions."""

    job_id: str
    attempt: int
    seq: int
    step: int
    superseded: bool = False
    loss: float | None = None
    learning_rate: float | None = None
    token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_token_accuracy: float | None = None


def from_row(row: Row[Any]) -> StepMetrics:
    return StepMetrics(**row._mapping)


def to_row(step: StepMetrics) -> dict[str, Any]:
    return asdict(step)


def add(connection: Connection, step: StepMetrics) -> None:
    """The step's current row; rows of earlier attempts from this step on are superseded."""
    supersede(connection, step.job_id, after_step=step.step - 1, before_attempt=step.attempt)
    connection.execute(insert(metrics).values(to_row(step)))


def supersede(connection: Connection, job_id: str, *, after_step: int, before_attempt: int) -> None:
    """What attempts before `before_attempt` did after `after_step` counts no more."""
    old = (metrics.c.job_id == job_id) & (metrics.c.step > after_step) & (metrics.c.attempt < before_attempt)
    connection.execute(update(metrics).where(old, ~metrics.c.superseded).values(superseded=True))


def set_validation(connection: Connection, job_id: str, step: int, loss: float | None, token_accuracy: float | None) -> None:
    """Adds what was measured on held-out rows to the step's current row."""
    current = (metrics.c.job_id == job_id) & (metrics.c.step == step) & ~metrics.c.superseded
    connection.execute(update(metrics).where(current).values(valid_loss=loss, valid_token_accuracy=token_accuracy))


def find(connection: Connection, job_id: str, step: int) -> StepMetrics | None:
    """A step's current row."""
    query = select(metrics).where(metrics.c.job_id == job_id, metrics.c.step == step, ~metrics.c.superseded)
    row = connection.execute(query).first()
    return None if row is None else from_row(row)


def list_current(connection: Connection, job_id: str) -> list[StepMetrics]:
    """One row per step, in the order of the steps."""
    query = select(metrics).where(metrics.c.job_id == job_id, ~metrics.c.superseded).order_by(metrics.c.step)
    return [from_row(row) for row in connection.execute(query)]
