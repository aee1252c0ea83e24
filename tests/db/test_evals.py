"""Evals and the items of their runs, on both databases: lists, changes, each row once, projects."""

import pytest

from tunesmith.db import eval_runs, evals, jobs
from tunesmith.db.eval_runs import EvalItem
from tunesmith.db.evals import Eval
from tunesmith.db.jobs import Job
from tunesmith.db.migrate import open_database
from tunesmith.errors import InvalidRequest, NotFound


@pytest.fixture
def connection(where):
    database = open_database(*where)
    with database.write() as opened:
        yield opened
    database.close()


def definition(name, project="proj_a", updated=1.0):
    return Eval(name, name, {"type": "logs"}, [{"type": "string_check"}], 1, updated, {"k": "v"}, project)


def run(name, parent="eval-1", project="proj_a", status="queued"):
    return Job(name, {}, {}, 1, kind="eval_run", project=project, parent=parent, status=status)


def item(row, status="pass", run_id="run-1", text="x"):
    return EvalItem(run_id, row, status, [{"name": "n", "passed": True}], {}, {"text": text}, {}, 5)


def test_evals_are_listed_by_creation_or_change_page_by_page(connection):
    for name, updated in (("eval-1", 3.0), ("eval-2", 1.0), ("eval-3", 3.0)):
        evals.add(connection, definition(name, updated=updated))
    evals.add(connection, definition("eval-b", "proj_b"))

    def pages(**fields):
        after, has_more, ids = None, True, []
        while has_more:
            found, has_more = evals.list_page(connection, "proj_a", after=after, limit=1, **fields)
            ids += [each.id for each in found]
            after = ids[-1]
        return ids

    assert pages(order="asc", order_by="created_at") == ["eval-1", "eval-2", "eval-3"]
    assert pages(order="asc", order_by="updated_at") == ["eval-2", "eval-1", "eval-3"]
    assert pages(order="desc", order_by="updated_at") == ["eval-3", "eval-1", "eval-2"]
    changed = evals.change(connection, evals.get(connection, "eval-2", "proj_a"), name="new")
    assert (changed.name, changed.metadata) == ("new", {"k": "v"})
    assert pages(order="desc", order_by="updated_at")[0] == "eval-2"
    with pytest.raises(InvalidRequest):
        evals.list_page(connection, "proj_a", after="eval-b", limit=1, order="asc", order_by="updated_at")
    with pytest.raises(NotFound):
        evals.get(connection, "eval-b", "proj_a")


def test_a_row_is_one_item_however_often_it_is_told(connection):
    jobs.add(connection, run("run-1"))
    first = item(0, text="kept")
    for each in (first, item(0, "fail"), item(1, "fail", text="any text \x00 is taken"), item(2, "error")):
        eval_runs.add_item(connection, each)

    def rows(**fields):
        whole = {"after": None, "limit": 2, "order": "asc", "status": None, **fields}
        found, has_more = eval_runs.list_items(connection, "run-1", **whole)
        return [(each.row, each.status) for each in found], has_more

    assert rows() == ([(0, "pass"), (1, "fail")], True)
    assert rows(order="desc", limit=9) == ([(2, "error"), (1, "fail"), (0, "pass")], False)
    assert rows(status="fail") == ([(1, "fail")], False)
    assert eval_runs.get_item(connection, "run-1", first.id) == first
    with pytest.raises(NotFound):
        eval_runs.get_item(connection, "run-2", first.id)


def test_runs_are_their_eval_s_and_project_s_and_a_forgotten_one_is_nobody_s(connection):
    for each in (run("run-1"), run("run-2", status="succeeded"), run("run-3", "eval-2"), run("run-4", project="proj_b")):
        jobs.add(connection, each)
    listed, _ = eval_runs.list_page(connection, "eval-1", "proj_a", after=None, limit=9, order="asc", statuses=[])
    assert [each.id for each in listed] == ["run-1", "run-2"]
    done, _ = eval_runs.list_page(connection, "eval-1", "proj_a", after=None, limit=9, order="asc", statuses=["succeeded"])
    assert [each.id for each in done] == ["run-2"]
    eval_runs.add_item(connection, item(0))
    eval_runs.forget(connection, "run-1")
    eval_runs.add_item(connection, item(1))
    assert eval_runs.list_items(connection, "run-1", after=None, limit=9, order="asc", status=None) == ([], False)
    for eval_id, name, project in (("eval-1", "run-1", "proj_a"), ("eval-2", "run-2", "proj_a"), ("eval-1", "run-4", "proj_a")):
        with pytest.raises(NotFound):
            eval_runs.get(connection, eval_id, name, project)
