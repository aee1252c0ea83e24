"""The engine's server on the small base, in this process: for the tests that ask it over HTTP."""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI

from tunesmith.models.catalog import Base

if TYPE_CHECKING:
    from tunesmith.engine.answers import Served

ENGINE_KEY = "a-key-of-this-test"


@pytest.fixture(scope="module")
def served(small_base: Base) -> "Iterator[Served]":
    from tunesmith.data.tokenizer import load_tokenizer
    from tunesmith.engine.answers import Served
    from tunesmith.engine.build import build_runner
    from tunesmith.engine.core import Core
    from tunesmith.engine.vocabulary import Vocabulary

    runner = build_runner(small_base, "none")
    core = Core(runner)
    core.start()
    vocabulary = Vocabulary(load_tokenizer(small_base.folder))
    yield Served(small_base, "none", vocabulary, core, runner.end_tokens(), ENGINE_KEY)
    core.stop()


@pytest.fixture
async def server(served: "Served") -> AsyncIterator[TestServer]:
    from tunesmith.engine.server import Server

    server = TestServer(Server(served).app())
    await server.start_server()
    yield server
    await server.close()


@pytest.fixture
async def client(server: TestServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key=ENGINE_KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def model(small_base: Base) -> str:
    return small_base.id
