"""Real engine processes: started when asked, again after a crash with their adapters, gone with their parent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.serving.embedded import Embedded, backoff_seconds
from tunesmith.serving.processes import EngineOrder
from tunesmith.serving.routing import Adapter, Router, Target, base_target
from tunesmith.settings import Settings

Make = Callable[..., AdapterInfo]
NAME = "ft:tunesmith/tiny:local:my model:0123abcd"
CHAT = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 8}


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    router = Router(Settings(data_dir=tmp_path, threads=1))
    yield router
    await router.stop()


def tuned(base: Base, info: AdapterInfo) -> Target:
    return Target(NAME, base.id, info.quantization, Adapter(Path(info.path), info.content_hash))


async def ask(router: Router, target: Target, **more: Any) -> tuple[int, Any]:
    answer = await router.chat(target, CHAT | more)
    return answer.status, json.loads(await answer.read())


def said(answer: tuple[int, Any]) -> str:
    status, body = answer
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"])


async def test_one_engine_serves_base_and_adapters_streams_passes_errors_on_and_survives_a_kill(
    router: Router, small_base: Base, make_adapter: Make
) -> None:
    base, adapter = base_target(small_base.id), tuned(small_base, make_adapter(1))
    plain = said(await ask(router, base))
    special = said(await ask(router, adapter))
    assert plain != special
    assert list((await router.states()).values()) == ["ready"]

    answer = await router.chat(adapter, CHAT | {"stream": True})
    assert (answer.status, answer.content_type) == (200, "text/event-stream")
    events = b"".join([chunk async for chunk in answer.chunks()]).decode().strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == special
    assert {chunk["model"] for chunk in chunks} == {adapter.model_id}

    status, body = await ask(router, base, logit_bias={"1": 1})
    assert (status, body["error"]["param"]) == (400, "logit_bias")

    upstream = await router.ready(base)
    assert isinstance(upstream, Embedded)
    first_pid = upstream.pid
    assert first_pid is not None
    assert await upstream.models() == [small_base.id, adapter.model_id]
    running = await router.chat(base, CHAT | {"stream": True, "max_tokens": 200, "temperature": 1.5, "n": 8})
    reader = running.chunks()
    await anext(reader)
    os.kill(first_pid, signal.SIGKILL)
    last = [chunk async for chunk in reader][-1]
    assert json.loads(last.decode().strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "engine_failed"

    while upstream.pid is not None:
        await asyncio.sleep(0.01)
    assert said(await ask(router, adapter)) == special
    assert upstream.pid not in {None, first_pid}

    changed = tuned(small_base, make_adapter(2))
    assert said(await ask(router, changed)) not in {plain, special}
    await router.drop(changed.base, changed.quantization, changed.model_id)
    assert await upstream.models() == [small_base.id]
    with pytest.raises(InvalidRequest, match="not the one that was published"):
        await ask(router, Target("x", base.base, "none", Adapter(Path(make_adapter(2).path), "0" * 64)))

    second_pid = upstream.pid
    await router.stop()
    assert not Path(f"/proc/{second_pid}").exists()
    assert await upstream.health() == "down"


async def test_requests_that_come_while_it_starts_wait_for_one_engine(router: Router, small_base: Base) -> None:
    target = base_target(small_base.id, "nf4")
    answers = await asyncio.gather(*(ask(router, target) for _ in range(5)))
    assert len({said(answer) for answer in answers}) == 1
    assert len(await router.states()) == 1


async def test_a_client_that_leaves_while_it_starts_does_not_stop_the_start(router: Router, small_base: Base) -> None:
    target = base_target(small_base.id)
    leaving = asyncio.create_task(router.ready(target))
    while not await router.states() or "starting" not in (await router.states()).values():
        await asyncio.sleep(0.01)
    upstream = router._upstream((target.base, "none"))
    assert isinstance(upstream, Embedded)
    pid = upstream.pid
    leaving.cancel()
    said(await ask(router, target))
    assert upstream.pid == pid


async def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    waited: list[float] = []
    order = EngineOrder("./nothing-here", "none", tmp_path, 1, tmp_path / "engine.log")
    upstream = Embedded(order, lambda base, seconds: waited.append(seconds))
    with pytest.raises(EngineFailed, match="There is no base model './nothing-here'"):
        await upstream.start()
    assert waited
    assert await upstream.health() == "down"
    await upstream.stop()


def test_an_engine_dies_with_its_parent(small_base: Base, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tunesmith.serving.processes import EngineOrder, start_engine\n"
        "order = EngineOrder(sys.argv[1], 'none', Path('.'), 1, Path(sys.argv[2]))\n"
        "engine = start_engine(order); print(engine.pid, engine.socket.parent, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, small_base.id, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    number, _, name = parent.stdout.readline().strip().partition(" ")
    pid, folder = int(number), Path(name)
    assert is_running(pid)
    # While the engine still imports torch: it finds its stdin ended when it first reads.
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while is_running(pid):
        time.sleep(0.05)
    assert not folder.exists()


def is_running(pid: int) -> bool:
    """A process that has ended and waits to be reaped does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_wait_grows_with_each_crash_and_has_an_end() -> None:
    assert [backoff_seconds(failures) for failures in (0, 1, 2, 3, 20)] == [0.0, 0.5, 1.0, 2.0, 30.0]


def test_the_desks_side_imports_no_torch() -> None:
    program = "import sys, tunesmith.serving.routing; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
