"""Usage adds up: per day, key, project, model and adapter, whoever writes first."""

import pytest

from tunesmith.db import usage
from tunesmith.db.migrate import open_database
from tunesmith.db.usage import Used


@pytest.fixture
def connection(where):
    database = open_database(*where)
    with database.write() as connection:
        yield connection
    database.close()


def used(day="2026-11-20", project="p", key="k", model="m", adapter="", **counts):
    return Used(day, project, key, model, adapter, **counts)


def test_the_same_row_grows(connection):
    usage.add(connection, [used(requests=1, input_tokens=5, cached_tokens=2, output_tokens=3)])
    usage.add(connection, [used(requests=1, input_tokens=3_000_000_000, output_tokens=1), used(key="other", requests=7)])
    mine = usage.report(connection, by=("key",), start="2026-11-20", end="2026-11-20", project="p")
    assert mine == [
        Used("2026-11-20", key="k", requests=2, input_tokens=3_000_000_005, cached_tokens=2, output_tokens=4),
        Used("2026-11-20", key="other", requests=7),
    ]


def test_a_report_sums_by_what_is_asked_and_keeps_projects_apart(connection):
    usage.add(connection, [used(model="a", output_tokens=1), used(model="b", output_tokens=2)])
    usage.add(connection, [used(project="q", output_tokens=4)])
    days = {"start": "2026-11-01", "end": "2026-11-30"}
    assert [row.output_tokens for row in usage.report(connection, by=(), project="p", **days)] == [3]
    assert [row.model for row in usage.report(connection, by=("model",), project="p", **days)] == ["a", "b"]
    both = usage.report(connection, by=("project",), project=None, **days)
    assert [(row.project, row.tokens) for row in both] == [("p", 3), ("q", 4)]
    assert usage.report(connection, by=(), start="2026-12-01", end="2026-12-31", project=None) == []


def test_a_budget_counts_from_its_first_day(connection):
    usage.add(connection, [used(day="2026-10-31", input_tokens=100), used(day="2026-11-01", input_tokens=5)])
    usage.add(connection, [used(output_tokens=2)])
    assert usage.tokens_since(connection, "2026-11-01", project="p") == 7
    assert usage.tokens_since(connection, "2026-11-20", key="k") == 2
    assert usage.tokens_since(connection, "2026-11-01", project="nobody") == 0
