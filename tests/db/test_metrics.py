"""Each optimizer step has exactly one current row, whatever attempts did it."""

import pytest
from orders import tuning_job
from sqlalchemy import select

from tunesmith.db import jobs, metrics
from tunesmith.db.metrics import StepMetrics
from tunesmith.db.migrate import open_database
from tunesmith.db.tables import metrics as table


@pytest.fixture
def connection(where):
    database = open_database(*where)
    with database.write() as connection:
        jobs.add(connection, tuning_job("job"))
        yield connection
    database.close()


def add(connection, attempt, steps):
    for seq, step in enumerate(steps, start=1):
        metrics.add(connection, StepMetrics("job", attempt, seq, step, loss=float(attempt)))


def test_steps_done_again_supersede_those_of_the_attempt_before(connection):
    add(connection, 1, range(1, 8))
    metrics.supersede(connection, "job", after_step=5, before_attempt=2)
    add(connection, 2, range(6, 11))
    current = metrics.list_current(connection, "job")
    assert [(row.step, row.attempt) for row in current] == [(s, 1) for s in range(1, 6)] + [(s, 2) for s in range(6, 11)]
    assert len(connection.execute(select(table)).all()) == 12


def test_an_attempt_that_begins_anew_supersedes_all_even_without_saying_resumed(connection):
    add(connection, 1, range(1, 5))
    add(connection, 2, range(1, 3))
    assert [(row.step, row.attempt) for row in metrics.list_current(connection, "job")] == [(1, 2), (2, 2)]


def test_a_measurement_on_held_out_rows_joins_its_step(connection):
    add(connection, 1, [1, 2])
    metrics.set_validation(connection, "job", 2, 0.5, 0.75)
    current = metrics.list_current(connection, "job")
    assert [(row.valid_loss, row.valid_token_accuracy) for row in current] == [(None, None), (0.5, 0.75)]
