"""Our own engine as a child: one start for all who wait, reasons when there is none, gone with its parent."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from serving.parts import ask, engines, is_running, said, tuned
from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.serving.driven import Driven, backoff_seconds
from tunesmith.serving.embedded import Embedded
from tunesmith.serving.memory import Memory
from tunesmith.serving.orders import threads_of
from tunesmith.serving.processes import EngineOrder
from tunesmith.serving.routing import Adapter, Router, Target, base_target
from tunesmith.settings import Settings

Make = Callable[..., AdapterInfo]


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    router = Router(Settings(data_dir=tmp_path, threads=1))
    yield router
    await router.stop()


async def test_who_comes_while_it_starts_waits_for_one_engine_and_who_leaves_stops_nothing(
    router: Router, small_base: Base
) -> None:
    target = base_target(small_base.id)
    (engine,) = engines(router, small_base)
    leaving = asyncio.create_task(router.ready(target))
    while engine.pid is None:
        await asyncio.sleep(0.01)
    assert (await engine.health()).status == "loading"
    pid = engine.pid
    leaving.cancel()
    answers = await asyncio.gather(*(ask(router, target) for _ in range(5)))
    assert len({said(answer) for answer in answers}) == 1
    assert engine.pid == pid
    assert [(state.base, state.state.status) for state in await router.states()] == [(small_base.id, "ready")]
    assert "tunesmith_engine" in (await router.metrics())[small_base.id, "none", 0]


async def test_what_the_engine_refuses_comes_back_with_its_field(router: Router, small_base: Base, make_adapter: Make) -> None:
    target = tuned(small_base, make_adapter(1))
    status, body = await ask(router, target, temperature=-1)
    assert (status, body["error"]["param"]) == (400, "temperature")
    assert set(body["error"]) == {"message", "type", "param", "code"}
    with pytest.raises(InvalidRequest, match="not the one that was published"):
        await ask(router, Target("x", small_base.id, "none", Adapter(Path(make_adapter(2).path), "0" * 64)))


async def test_a_base_on_nf4_is_another_engine(router: Router, small_base: Base, make_adapter: Make) -> None:
    said(await ask(router, tuned(small_base, make_adapter(1, "nf4"))))
    assert [(state.base, state.quantization) for state in await router.states()] == [(small_base.id, "nf4")]


async def test_an_engine_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its last words: a process that was forked from a test's zygote may have others.
    monkeypatch.delenv("TUNESMITH_TEST_ZYGOTES", raising=False)
    order = EngineOrder("./nothing-here", "none", tmp_path, 1, tmp_path / "engine.log")
    upstream = Driven(Embedded(order), memory=Memory())
    with pytest.raises(EngineFailed, match="There is no base model './nothing-here'"):
        await upstream.start()
    state = await upstream.health()
    assert state.status == "down"
    assert "nothing-here" in state.stage
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


def test_the_wait_grows_with_each_crash_and_has_an_end() -> None:
    assert [backoff_seconds(failures) for failures in (0, 1, 2, 3, 20)] == [0.0, 0.5, 1.0, 2.0, 30.0]


def test_threads_are_shared_among_replicas_and_with_a_training() -> None:
    of = Settings.model_validate
    assert threads_of(of({}), 8, is_training=False) == 8
    assert threads_of(of({}), 8, is_training=True) == 4
    assert threads_of(of({"replicas": 4}), 8, is_training=True) == 1
    assert threads_of(of({"replicas": 4, "threads": 2}), 8, is_training=True) == 1


def test_the_desks_side_imports_no_torch() -> None:
    program = "import sys, tunesmith.serving.routing; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
