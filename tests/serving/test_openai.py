"""A server elsewhere: address and key are checked at once, its models are listed with ours, and when it is gone that is said."""

import asyncio
import json

import openai
import pytest
from aiohttp import web
from api.conftest import serve

from serving.conftest import server_elsewhere
from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.models.catalog import Base
from tunesmith.serving.driven import Driven
from tunesmith.serving.memory import Memory
from tunesmith.serving.openai import OpenAI
from tunesmith.serving.processes import free_port
from tunesmith.settings import Settings

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("url", ["10.0.0.5:8000", "ftp://host/v1", "http://", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="no address of a server"):
        OpenAI(url, None)


def test_a_key_that_is_not_in_the_environment_is_said_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(InvalidRequest, match="no NO_SUCH_KEY"):
        OpenAI("http://host/v1", "NO_SUCH_KEY")


async def test_where_nobody_answers_is_said() -> None:
    upstream = Driven(OpenAI(f"http://127.0.0.1:{free_port()}/v1", None), memory=Memory())
    with pytest.raises(EngineFailed, match="did not start: nobody answers there"):
        await upstream.start()
    await upstream.stop()


async def test_a_stream_of_an_engine_that_hangs_ends_when_the_engine_is_stopped() -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"model": "m"}\n\n')
        await asyncio.sleep(600)
        return response

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", hang)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
    upstream = Driven(OpenAI(f"http://127.0.0.1:{port}", None), memory=Memory())
    events = (await upstream.ask("/v1/chat/completions", {"model": "m", "stream": True})).chunks()
    assert json.loads((await anext(events)).removeprefix(b"data: ")) == {"model": "m"}
    reading = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    await upstream.stop()
    assert b"engine_failed" in await reading
    assert upstream.in_flight == 1
    await events.aclose()
    assert upstream.in_flight == 0
    await runner.cleanup()


def test_the_desk_lists_its_models_and_passes_questions_on(
    base: Base, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE_KEY", "secret")
    folder = tmp_path_factory.mktemp("data")
    with server_elsewhere(base, "secret") as url:
        settings = Settings(data_dir=folder, lazy=True, engine="openai", upstream=url, upstream_key_env="ELSEWHERE_KEY")
        with serve(settings) as served:
            client = served.client()
            assert [model.id for model in client.models.list()] == ["tunesmith/tiny", base.id]
            answer = client.chat.completions.create(model=base.id, messages=HELLO, max_tokens=4)  # type: ignore[arg-type]
            assert answer.model == base.id
            with pytest.raises(openai.NotFoundError, match="nobody/knows"):
                client.chat.completions.create(model="nobody/knows", messages=HELLO)  # type: ignore[arg-type]
            assert "secret" not in json.dumps(served.request("GET", "/health", key=False)[2])
