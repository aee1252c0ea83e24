"""Limits, budgets and usage, through the real client and an engine of fixed delays: reserved, settled, refunded, counted."""

import json
import threading

import openai
import pytest
from aiohttp import web

from api.conftest import serve
from bench.api.mock_engine import Engine, make_app
from tunesmith.db import keys, projects
from tunesmith.settings import Settings

ASK = {"model": "mock", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
PROMPT_TOKENS = 10
"""What the engine says of every prompt."""


NO = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}


class Failing(Engine):
    """Answers 500 to who asks for it, and in five tokens to who asks for a short answer."""

    async def answer(self, request):
        body = await request.json()
        wish = body["messages"][0]["content"]
        if wish == "short":
            return await self._whole(body | {"max_tokens": 5})
        return web.json_response(NO, status=500) if wish == "fail" else await super().answer(request)


@pytest.fixture(scope="module")
def engine_url():
    """The mock engine on a thread of its own."""
    import asyncio

    ready, url, stop = threading.Event(), [], []

    async def run():
        runner = web.AppRunner(make_app(Failing()))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url.append(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1")
        ended = asyncio.Event()
        stop.append((asyncio.get_running_loop(), ended))
        ready.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(30)
    yield url[0]
    loop, ended = stop[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join()


@pytest.fixture(scope="module")
def served(engine_url, tmp_path_factory):
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), engine="openai", upstream=engine_url, lazy=True)
    with serve(settings) as running:
        yield running


@pytest.fixture
def make(served):
    """A client of a new key in a new project, with these limits."""

    def make(limits=None, project_limits=None):
        with served.desk.database.write() as connection:
            project = projects.create(connection, f"p{make.count}", project_limits)
            key, text = keys.create(connection, "k", project=project.id, limits=limits, role="owner")
        make.count += 1
        return served.client(api_key=text), key

    make.count = len(projects_of(served))
    return make


def projects_of(served):
    with served.desk.database.read() as connection:
        return projects.list_page(connection, after=None, limit=100)[0]


def used(client, by="key"):
    rows = json.loads(client.get("/usage", cast_to=str, options={"params": {"by": by}}))["data"]
    return [(row["requests"], row["input_tokens"], row["output_tokens"]) for row in rows]


def test_more_requests_than_allowed_are_a_rate_limit_error_that_says_when(make):
    client, _ = make({"requests_per_minute": 2})
    for _ in range(2):
        client.chat.completions.create(**ASK)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    error = caught.value
    assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
    assert 25 <= int(error.response.headers["retry-after"]) <= 30
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_every_reply_tells_what_is_left(make):
    client, _ = make({"requests_per_minute": 10}, {"requests_per_minute": 5, "tokens_per_minute": 100_000})
    for stream in (False, True):
        with client.chat.completions.with_streaming_response.create(**ASK, stream=stream) as response:
            list(response.iter_lines())
        headers = response.headers
        assert headers["x-ratelimit-limit-requests"] == "5", "the tighter of both"
        assert headers["x-ratelimit-limit-tokens"] == "100000"
        assert headers["openai-processing-ms"].isdigit()
        assert headers["x-request-id"].startswith("req_")
    assert headers["x-ratelimit-remaining-requests"] == "3"
    assert headers["x-ratelimit-reset-requests"].endswith("s")


def test_all_keys_of_a_project_share_its_limit(served, make):
    client, key = make(None, {"requests_per_minute": 1})
    with served.desk.database.write() as connection:
        _, text = keys.create(connection, "second", project=key.project)
    client.chat.completions.create(**ASK)
    with pytest.raises(openai.RateLimitError):
        served.client(api_key=text).chat.completions.create(**ASK)


def test_tokens_are_reserved_and_what_was_not_used_comes_back(make):
    client, _ = make({"tokens_per_minute": 1000})
    for _ in range(4):  # each reserves more than 900 of 1,000 and uses 15
        client.chat.completions.create(**ASK | {"messages": [{"role": "user", "content": "short"}], "max_tokens": 900})
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK | {"max_tokens": 1001})
    assert "too large" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_an_answer_that_fails_costs_nothing(make):
    client, _ = make({"requests_per_minute": 1, "tokens_per_day": 1000})
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ASK | {"messages": [{"role": "user", "content": "fail"}]})
    client.chat.completions.create(**ASK)
    assert used(client) == [(1, PROMPT_TOKENS, 5)]


def test_a_budget_that_is_used_up_is_an_insufficient_quota(make):
    client, _ = make({"tokens_per_day": 35})
    client.chat.completions.create(**ASK)
    client.chat.completions.create(**ASK)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert int(caught.value.response.headers["retry-after"]) <= 86_400


def test_a_budget_remembers_what_was_used_before(served, make):
    client, key = make(None)
    for _ in range(3):
        client.chat.completions.create(**ASK)
    with served.desk.database.write() as connection:
        projects.change(connection, key.project, limits={"tokens_per_month": 50})
    served.desk.callers.forget()
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**ASK)


@pytest.mark.parametrize("options", [None, {"include_usage": True}])
def test_streams_are_counted_whether_or_not_the_client_asks(make, options):
    client, _ = make({"tokens_per_minute": 10_000})
    asked = {} if options is None else {"stream_options": options}
    chunks = list(client.chat.completions.create(**ASK, stream=True, **asked))
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(told) == (options is not None), "who did not ask for usage sees none"
    assert all(chunk.choices for chunk in chunks if chunk.usage is None)
    assert used(client) == [(1, PROMPT_TOKENS, 5)]


def test_usage_is_counted_per_key_and_model_and_given_as_csv(served, make):
    client, key = make()
    client.chat.completions.create(**ASK)
    rows = json.loads(client.get("/usage", cast_to=str, options={"params": {"by": "key,model,project"}}))["data"]
    assert [(row["key"], row["model"], row["project"], row["adapter"]) for row in rows] == [(key.id, "mock", key.project, None)]
    text = client.get("/usage", cast_to=str, options={"params": {"by": "key", "format": "csv"}})
    assert text.splitlines() == [
        "day,key,requests,input_tokens,cached_tokens,output_tokens", f"{rows[0]['day']},{key.id},1,{PROMPT_TOKENS},0,5"
    ]


def test_jobs_at_once_are_limited(served, make):
    from tunesmith.db import jobs

    client, key = make({"jobs_at_once": 1})
    with served.desk.database.write() as connection:
        jobs.add(connection, jobs.Job("ftjob-waits", {}, {}, 0, project=key.project, key=key.id, status="paused"))
    with pytest.raises(openai.RateLimitError) as caught:
        client.fine_tuning.jobs.create(model="tunesmith/tiny", training_file="file-x")
    assert (caught.value.type, caught.value.response.headers["retry-after"]) == ("jobs", "10")
