"""The engine as a process: it answers while it loads, lets answers end at SIGTERM, and leaves nothing behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tunesmith.models.catalog import Base

CHAT = "http://engine/v1/chat/completions"


@dataclass
class Running:
    child: "subprocess.Popen[bytes]"
    client: aiohttp.ClientSession
    base: str

    async def health(self) -> tuple[int, dict[str, Any]]:
        async with self.client.get("http://engine/health") as answer:
            return answer.status, await answer.json()

    async def until_ready(self) -> list[dict[str, Any]]:
        """What health said before."""
        told = []
        while True:
            assert self.child.poll() is None, "the engine ended"
            with suppress(aiohttp.ClientError, OSError):
                status, body = await self.health()
                if status == 200:
                    return told
                told.append(body)
            await asyncio.sleep(0.02)

    def ask(self, **more: Any) -> dict[str, Any]:
        return {"model": self.base, "messages": [{"role": "user", "content": "hi"}], "temperature": 0, **more}


@asynccontextmanager
async def engine(base: Base, folder: Path) -> AsyncIterator[Running]:
    path = folder / "s"
    child = subprocess.Popen(
        [sys.executable, "-m", "tunesmith.engine", "--base", str(base.folder), "--socket", str(path), "--threads", "1"],
        env={**os.environ, "TUNESMITH_ENGINE_KEY": "k"},
    )
    connector = aiohttp.UnixConnector(str(path))
    try:
        async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer k"}) as client:
            yield Running(child, client, str(base.folder))
    finally:
        child.kill()
        child.wait()


async def test_it_says_how_far_it_is_then_answers_and_counts(small_base: Base, tmp_path: Path) -> None:
    async with engine(small_base, tmp_path) as running:
        told = await running.until_ready()
        assert told[0]["status"] == "loading"
        assert told[0]["base"] == str(small_base.folder)
        assert [body["progress"] for body in told] == sorted(body["progress"] for body in told)
        answer = await (await running.client.post(CHAT, json=running.ask(max_tokens=5))).json()
        tokens = answer["usage"]["completion_tokens"]
        # The times are noted just after the answer is out.
        counted = f'tunesmith_engine_time_to_first_token_seconds_count{{base="{small_base.id}"}} 1.0'
        text = ""
        while counted not in text:
            text = await (await running.client.get("http://engine/metrics")).text()
        assert f'tunesmith_engine_generated_tokens_total{{base="{small_base.id}"}} {float(tokens)}' in text
        assert (await running.client.post("http://engine/threads", json={"threads": 1})).status == 200
        refused = await running.client.post("http://engine/threads", json={"threads": 0})
        assert (await refused.json())["error"]["param"] == "threads"


async def test_at_sigterm_running_answers_end_and_new_ones_are_refused(small_base: Base, tmp_path: Path) -> None:
    async with engine(small_base, tmp_path) as running:
        await running.until_ready()
        body = running.ask(max_tokens=180, stream=True, ignore_eos=True, stream_options={"include_usage": True})
        stream = await running.client.post(CHAT, json=body)
        first = await stream.content.readline()
        assert first.startswith(b"data: ")
        running.child.send_signal(signal.SIGTERM)
        late = await running.client.post(CHAT, json=running.ask(max_tokens=5))
        rest = (await stream.read()).decode().strip().split("\n\n")
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["usage"]["completion_tokens"] == 180
        assert late.status == 503
        assert (await late.json())["error"]["code"] == "engine_draining"
        assert await asyncio.to_thread(running.child.wait, 60) == 0


async def test_a_second_sigterm_does_not_wait(small_base: Base, tmp_path: Path) -> None:
    async with engine(small_base, tmp_path) as running:
        await running.until_ready()
        body = running.ask(max_tokens=180, stream=True, ignore_eos=True, n=16)
        stream = await running.client.post(CHAT, json=body)
        await stream.content.readline()
        running.child.send_signal(signal.SIGTERM)
        while (await running.health())[0] != 503:
            await asyncio.sleep(0.01)
        running.child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.child.wait, 60) == 0
        with suppress(aiohttp.ClientError):
            assert b"[DONE]" not in await stream.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_while_it_loads_it_goes(small_base: Base, tmp_path: Path, number: int) -> None:
    async with engine(small_base, tmp_path) as running:
        while not (tmp_path / "s").exists():
            await asyncio.sleep(0.02)
        with suppress(aiohttp.ClientError, OSError):
            await running.health()
        running.child.send_signal(number)
        assert await asyncio.to_thread(running.child.wait, 60) in (0, -number)


async def test_a_base_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunesmith.engine", "--base", "no/such-base", "--socket", str(tmp_path / "s"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await child.communicate()
    assert child.returncode == 1
    assert said.decode().strip().splitlines()[-1].startswith("Error: There is no base model 'no/such-base'.")
