"""An eval run's worker against a desk that answers as the test says: each row once, patience, errors, orders to stop."""

import asyncio
import json
import threading
from collections import Counter

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tunesmith.errors import Fenced, InvalidData
from tunesmith.evals import desk as desk_client
from tunesmith.evals.run import outcomes_so_far, run_eval
from tunesmith.evals.summary import names_of
from tunesmith.recipes.eval_run import EvalRunRecipe
from tunesmith.runfolder import EventLog, JobTools, RunFolder

CRITERION = {
    "type": "string_check", "name": "same", "operation": "eq", "input": "{{ sample.output_text }}", "reference": "{{ item.n }}",
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}


class Desk:
    """Says back the last message, after what `before(text, how_often)` answers instead."""

    def __init__(self):
        self.asked = Counter()
        self.headers = {}
        self.before = lambda text, times: None

    async def chat(self, request):
        body = await request.json()
        text = body["messages"][-1]["content"]
        self.asked[text] += 1
        self.headers = dict(request.headers)
        told = self.before(text, self.asked[text])
        if told is not None:
            return told
        message = {"role": "assistant", "content": text}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE})


class Run:
    """A folder with `count` rows, run by as many attempts as wanted."""

    def __init__(self, root, url, count, **recipe):
        sampling = {"model": "m", "template": [{"role": "user", "content": "{{ item.n }}"}], "fields": {"temperature": 0}}
        whole = {"criteria": [CRITERION], "embedding_model": "e", "sampling": sampling, "concurrency": 2} | recipe
        self.recipe = EvalRunRecipe.model_validate(whole)
        self.folder = RunFolder(root).create(self.recipe)
        self.folder.data_path("rows.jsonl").write_text("".join(f"{json.dumps({'item': {'n': n}})}\n" for n in range(count)))
        self.url = url

    def attempt(self, number, should_stop=lambda: None):
        log = EventLog(self.folder.events_file(number))
        try:
            return run_eval(self.recipe, self.folder, JobTools(log.emit, should_stop, self.url, "sk-test"))
        finally:
            log.close()

    def rows(self):
        return sorted(outcomes_so_far(self.folder))


@pytest.fixture
def desk(monkeypatch):
    """The desk's own thread, for a worker runs its own loop."""
    monkeypatch.setattr(desk_client, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(desk_client, "LONGEST_WAIT", 0.002)
    made, loop, ready = Desk(), asyncio.new_event_loop(), threading.Event()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.chat)

    async def start():
        made.server = TestServer(app)
        await made.server.start_server()
        made.url = str(made.server.make_url("/v1"))
        ready.set()

    def serve():
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(made.server.close())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
    yield made
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_each_row_is_asked_once_and_counted(desk, tmp_path):
    found = Run(tmp_path / "run", desk.url, 5).attempt(1)
    assert found["result_counts"] == {"total": 5, "errored": 0, "failed": 0, "passed": 5}
    assert found["per_model_usage"] == [{
        "model_name": "m", "invocation_count": 5, "prompt_tokens": 15, "completion_tokens": 10, "total_tokens": 25,
        "cached_tokens": 5,
    }]
    assert found["per_testing_criteria_results"] == [{"testing_criteria": "same", "passed": 5, "failed": 0}]
    assert set(desk.asked.values()) == {1}
    assert (desk.headers["x-tunesmith-priority"], desk.headers["Authorization"]) == ("batch", "Bearer sk-test")


def test_a_new_attempt_asks_only_what_has_no_item_also_after_a_torn_line(desk, tmp_path):
    run = Run(tmp_path / "run", desk.url, 6, concurrency=6)
    desk.before = lambda text, times: web.Response(status=503) if text in "45" else None

    def lost():
        if len(run.rows()) == 4:
            raise Fenced("another attempt holds the lease")

    with pytest.raises(Fenced):
        run.attempt(1, lost)
    assert run.rows() == [0, 1, 2, 3]
    events = run.folder.events_file(1)
    events.write_bytes(events.read_bytes() + b'{"seq": 99, "type": "item", "row": 5, "sta')
    desk.before = lambda text, times: None
    assert run.attempt(2)["result_counts"]["total"] == 6
    assert run.rows() == list(range(6))
    assert [desk.asked[str(row)] for row in range(4)] == [1, 1, 1, 1]


def test_an_order_to_pause_lets_rows_under_way_end_and_an_order_to_cancel_does_not(desk, tmp_path):
    run = Run(tmp_path / "run", desk.url, 40)
    assert run.attempt(1, lambda: "pause") is None
    assert run.attempt(2, lambda: None)["result_counts"]["total"] == 40
    assert set(desk.asked.values()) == {1}, "nothing that was under way was thrown away"
    desk.before = lambda text, times: web.Response(status=503, headers={"retry-after": "60"})
    assert Run(tmp_path / "other", desk.url, 3).attempt(1, lambda: "cancel") is None


def test_a_busy_or_broken_desk_is_asked_again_and_a_refusal_is_the_row_s_error(desk, tmp_path):
    def before(text, times):
        error = {"error": {"message": f"no {text}", "code": "invalid_value", "param": None, "type": "invalid_request_error"}}
        if text == "0" and times < 3:
            return web.json_response(error, status=429, headers={"retry-after": "0"})
        if text == "1" and times < 3:
            return web.json_response(error, status=502)
        if text == "2":
            return web.json_response(error, status=400)
        if text == "3":
            return web.json_response(error, status=429, headers={"x-should-retry": "false"})
        return web.json_response(error, status=502) if text == "4" else None

    desk.before = before
    found = Run(tmp_path / "run", desk.url, 6).attempt(1)
    assert found["result_counts"] == {"total": 6, "errored": 3, "failed": 0, "passed": 3}
    assert [desk.asked[str(row)] for row in range(6)] == [3, 3, 1, 1, desk_client.MAX_BROKEN, 1]


def test_a_run_without_rows_says_so(desk, tmp_path):
    with pytest.raises(InvalidData):
        Run(tmp_path / "run", desk.url, 0).attempt(1)


def test_a_schema_s_reference_is_never_fetched(desk, tmp_path):
    """The server would count it."""
    schema = {"$ref": desk.url + "/chat/completions"}
    found = Run(tmp_path / "run", desk.url, 1, item_schema=schema).attempt(1)
    assert found["result_counts"]["errored"] == 1
    assert not desk.asked


def test_criteria_have_names_that_differ():
    criteria = EvalRunRecipe.model_validate({
        "embedding_model": "e", "criteria": [CRITERION, CRITERION | {"name": ""}, CRITERION, CRITERION | {"name": "same-2"}],
    }).criteria
    assert names_of(criteria) == ["same", "string_check", "same-2", "same-2-2"]
