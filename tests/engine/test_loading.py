"""While a base is loaded, health says how far it is, and questions are told to come again."""

import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tunesmith.engine.loading import STAGES, Progress, listen, loading_app


async def test_health_tells_the_stage_and_everything_else_is_asked_to_wait() -> None:
    progress = Progress("some/base")
    listening = listen(0)
    runner = web.AppRunner(loading_app(progress))
    await runner.setup()
    await web.SockSite(runner, listening).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with aiohttp.ClientSession() as client:
        answer = await client.get(f"{url}/health")
        body = await answer.json()
        assert (answer.status, body["status"], body["stage"], body["progress"]) == (503, "loading", STAGES[0], 0.0)
        progress.reach("check")
        assert 0 < (await (await client.get(f"{url}/health")).json())["progress"] < 1
        asked = await client.post(f"{url}/v1/chat/completions", json={})
        assert asked.status == 503
        assert asked.headers["Retry-After"]
        assert (await asked.json())["error"]["code"] == "engine_loading"
    await runner.cleanup()


async def test_who_comes_between_two_servers_on_one_socket_is_answered_by_the_second(tmp_path: Path) -> None:
    listening = listen(tmp_path / "s")
    first = web.AppRunner(loading_app(Progress("first")))
    await first.setup()
    await web.SockSite(first, listening.dup()).start()
    await first.cleanup()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "s"))) as client:
        waiting = client.get("http://engine/health")
        second = web.AppRunner(loading_app(Progress("second")))
        await second.setup()
        await web.SockSite(second, listening).start()
        assert (await (await waiting).json())["base"] == "second"
    await second.cleanup()


def test_a_taken_port_is_an_error_at_once() -> None:
    taken = listen(0)
    with pytest.raises(OSError, match="in use"):
        listen(taken.getsockname()[1])
    taken.close()


def test_the_engine_listens_before_it_imports_torch() -> None:
    code = "import sys, tunesmith.engine.__main__; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
