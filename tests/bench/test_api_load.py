"""The loads of bench.api count what they say: answers, refusals that say when, streams that were cut, time on the way."""

import pytest
from aiohttp.test_utils import TestServer

from bench.api import load
from bench.api.load import Result, Server, quantile
from bench.api.mock_engine import Engine, make_app


@pytest.fixture
async def start():
    started = []

    async def start(**delays):
        server = TestServer(make_app(Engine(**delays)))
        await server.start_server()
        started.append(server)
        return Server("direct", str(server.make_url("")).rstrip("/"))

    yield start
    for server in started:
        await server.close()


async def test_questions_in_turns_are_all_answered(start):
    results = await load.sequential([await start()], 3, 2)
    assert [(len(result.seconds), result.failed) for result in results["direct"]] == [(3, 0), (3, 0)]


async def test_what_comes_while_all_slots_are_taken_is_refused_and_told_when(start):
    result = await load.at_rate(await start(first=0.2, slots=1), 50, 0.3)
    assert result.seconds
    assert result.refused
    assert (result.unsaid, result.failed) == (0, 0)


async def test_streams_count_their_tokens_and_what_was_cut(start):
    server = await start()
    found = await load.streams(server, 4, 3, 0.01)
    assert (found.cut, len(found.delays), len(found.firsts)) == (0, 12, 4)
    assert all(delay >= 0 for delay in found.delays)
    gone = Server("gone", "http://127.0.0.1:9")
    assert (await load.streams(gone, 2, 3, 0.01)).cut == 2


def test_a_quantile_is_one_of_the_values():
    assert [quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0, 0.5, 0.99)] == [1.0, 3.0, 4.0]
    assert quantile([], 0.5) == 0


def test_a_refusal_is_no_failure():
    result = Result()
    for status in (200, 429, 500):
        result.note(status, status == 429, 0.1)
    assert (len(result.seconds), len(result.refused), result.unsaid, result.failed) == (1, 1, 0, 1)
