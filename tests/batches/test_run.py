"""A batch's worker against a desk that answers as the test says: order, errors, orders to wait, kills, cancellation, expiry."""

import asyncio
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from aiohttp import web

from tunesmith.batches.run import run_batch
from tunesmith.errors import Fenced
from tunesmith.recipes.batch import BatchRecipe
from tunesmith.runfolder import JobTools, RunFolder

URL = "/v1/chat/completions"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}


class FakeDesk:
    """Answers each question with its number, after what `before(number, how_often)` does; counts how often each was asked."""

    def __init__(self):
        self.asked: Counter[int] = Counter()
        self.headers = []
        self.before = lambda number, times: None
        self.url = ""

    async def answer(self, request):
        body = await request.json()
        number = body["number"]
        self.asked[number] += 1
        self.headers.append(request.headers)
        self.connection = request.transport
        told = self.before(number, self.asked[number])
        told = await told if asyncio.iscoroutine(told) else told
        if told is not None:
            return told
        return web.json_response({"number": number, "usage": USAGE}, headers={"x-request-id": f"req_{number}"})


@contextmanager
def serving(desk):
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve():
        app = web.Application()
        app.router.add_post(URL, desk.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        desk.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await done.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    try:
        yield desk
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


@pytest.fixture
def desk():
    with serving(FakeDesk()) as made:
        yield made


class Batch:
    def __init__(self, root, num_requests, **recipe):
        self.recipe = BatchRecipe(**{"endpoint": URL, "expires": int(time.time()) + 3600, "concurrency": 4, **recipe})
        self.folder = RunFolder(root).create(self.recipe)
        lines = [{"custom_id": f"c{n}", "method": "POST", "url": URL, "body": {"number": n}} for n in range(num_requests)]
        (root / "input.jsonl").write_text("\n".join(map(json.dumps, lines)))
        self.events = []

    def run(self, desk, should_stop=lambda: None):
        def emit(type, **fields):
            self.events.append({"type": type, **fields})

        return run_batch(self.recipe, self.folder, JobTools(emit, should_stop, desk.url, "secret"))

    def rows(self, name):
        return [json.loads(line) for line in (self.folder.root / name).read_text().splitlines()]


def test_answers_stand_in_the_order_of_the_input_and_failures_in_a_file_of_their_own(tmp_path, desk):
    async def before(number, times):
        await asyncio.sleep(0.02 * (5 - number % 5))  # the later of each five answers first
        if number in (2, 7):
            return web.json_response({"error": {"message": "no", "code": "x"}}, status=400)

    desk.before = before
    batch = Batch(tmp_path, 10)
    result = batch.run(desk)
    assert result["request_counts"] == {"total": 10, "completed": 8, "failed": 2}
    assert (result["outcome"], result["usage"]["input_tokens"], result["usage"]["cached_tokens"]) == ("completed", 24, 8)
    good = [n for n in range(10) if n not in (2, 7)]
    assert [row["custom_id"] for row in batch.rows(result["output"])] == [f"c{n}" for n in good]
    assert [row["response"]["body"]["number"] for row in batch.rows(result["output"])] == good
    first = batch.rows(result["output"])[0]["response"]
    assert (first["status_code"], first["request_id"]) == (200, "req_0")
    assert [(row["custom_id"], row["response"]["status_code"], row["error"]) for row in batch.rows(result["errors"])] == [
        ("c2", 400, None), ("c7", 400, None),
    ]
    assert batch.events[-1]["request_counts"] == result["request_counts"]
    assert {headers["x-tunesmith-priority"] for headers in desk.headers} == {"batch"}
    assert {headers["authorization"] for headers in desk.headers} == {"Bearer secret"}


def test_what_says_not_now_is_asked_again_and_what_says_never_is_an_answer(tmp_path, desk):
    def before(number, times):
        if number == 1 and times == 1:
            return web.json_response({}, status=429, headers={"retry-after": "0.1"})
        if number == 2 and times < 3:
            return web.json_response({}, status=503)
        if number == 3:
            return web.json_response({"error": {"message": "too large"}}, status=429, headers={"x-should-retry": "false"})

    desk.before = before
    batch = Batch(tmp_path, 5)
    result = batch.run(desk)
    assert result["request_counts"] == {"total": 5, "completed": 4, "failed": 1}
    assert (desk.asked[1], desk.asked[2], desk.asked[3]) == (2, 3, 1)
    assert batch.rows(result["errors"])[0]["response"]["status_code"] == 429


def test_a_connection_that_breaks_again_and_again_is_that_requests_error(tmp_path, desk):
    def before(number, times):
        if number == 1 or (number == 2 and times == 1):
            desk.connection.close()
        if number == 3:
            return web.json_response({}, status=502)

    desk.before = before
    batch = Batch(tmp_path, 4)
    result = batch.run(desk)
    assert result["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert (desk.asked[1], desk.asked[2], desk.asked[3]) == (4, 2, 4)
    broken, refused = batch.rows(result["errors"])
    assert (broken["response"], broken["error"]["code"]) == (None, "request_failed")
    assert (refused["response"]["status_code"], refused["error"]) == (502, None)


@pytest.mark.parametrize("torn", ["", '{"line": 5, "ok": tr'])
def test_what_has_an_answer_is_not_asked_again_by_the_next_attempt(tmp_path, desk, torn):
    """The attempt is fenced in the middle, which stops it as suddenly as a kill; a torn last line is what a kill may leave."""
    batch = Batch(tmp_path, 20, concurrency=2)

    def fenced_after_some():
        if len(desk.asked) > 8:
            raise Fenced("another attempt")

    desk.before = lambda number, times: asyncio.sleep(0.05)
    with pytest.raises(Fenced):
        batch.run(desk, fenced_after_some)
    answers = batch.folder.artifacts / "answers.jsonl"
    kept = [json.loads(line)["line"] - 1 for line in answers.read_text().splitlines()]
    with open(answers, "a") as file:
        file.write(torn)
    desk.asked.clear()
    result = batch.run(desk)
    assert 0 < len(kept) < 20
    assert sorted(desk.asked) == sorted(set(range(20)) - set(kept))
    assert [row["custom_id"] for row in batch.rows(result["output"])] == [f"c{n}" for n in range(20)]
    assert result["usage"]["input_tokens"] == 60


def test_a_cancelled_batch_finishes_what_is_under_way_and_keeps_what_is_done(tmp_path, desk):
    desk.before = lambda number, times: asyncio.sleep(0.1)
    batch = Batch(tmp_path, 40, concurrency=3)
    result = batch.run(desk, lambda: "cancel" if len(desk.asked) > 5 else None)
    done = [row["response"]["body"]["number"] for row in batch.rows(result["output"])]
    assert result["outcome"] == "cancelled"
    assert done == sorted(desk.asked)
    assert result["request_counts"] == {"total": 40, "completed": len(done), "failed": 0}
    assert 5 < len(done) < 40


def test_a_batch_that_runs_out_of_time_says_so_of_each_request_that_was_not_asked(tmp_path, desk):
    batch = Batch(tmp_path, 4, expires=int(time.time()) - 1)
    result = batch.run(desk)
    assert (result["outcome"], result["output"], desk.asked) == ("expired", None, Counter())
    assert [row["error"]["code"] for row in batch.rows(result["errors"])] == ["batch_expired"] * 4


def test_a_server_that_stops_lets_the_batch_go_and_publishes_nothing(tmp_path, desk):
    desk.before = lambda number, times: asyncio.sleep(0.05)
    batch = Batch(tmp_path, 30, concurrency=2)
    assert batch.run(desk, lambda: "pause" if len(desk.asked) > 4 else None) is None
    assert not (tmp_path / "artifacts" / "output.jsonl").exists()
    assert batch.run(desk)["request_counts"]["completed"] == 30
    assert max(desk.asked.values()) == 1, "what was under way was finished, not asked twice"


def test_a_desk_that_is_not_there_yet_is_waited_for(tmp_path):
    batch, desk = Batch(tmp_path, 2), FakeDesk()
    desk.url = "http://127.0.0.1:9/v1"
    calls = iter(range(1000))
    assert batch.run(desk, lambda: "cancel" if next(calls) > 3 else None)["request_counts"]["completed"] == 0
