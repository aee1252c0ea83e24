"""One contract for every kind of engine: ours, a server elsewhere (ours, over TCP), and vLLM (`make test-vllm`).

The tests run in order on one engine each: the last ones kill it and stop it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from serving.conftest import server_elsewhere, vllm_python
from serving.parts import CHAT, adapter_of, body_of, is_running, kill, said, stream_of
from tunesmith.errors import Busy, InvalidRequest, NotFound
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.paths import DataDir
from tunesmith.serving import installs
from tunesmith.serving.build import build
from tunesmith.serving.driven import Driven
from tunesmith.serving.memory import Memory
from tunesmith.serving.routing import CHAT as PATH
from tunesmith.serving.upstream import Adapter
from tunesmith.settings import Settings

Make = Callable[..., AdapterInfo]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]
KINDS = ["embedded", "openai", pytest.param("vllm", marks=pytest.mark.vllm)]


@dataclass
class Subject:
    kind: str
    base: Base
    upstream: Driven

    @property
    def takes_adapters(self) -> bool:
        return self.kind != "openai"

    async def ask(self, adapter: Adapter | None = None, name: str = "", **more: Any) -> Any:
        return await self.upstream.ask(PATH, CHAT | {"model": name or self.base.id} | more, adapter)

    async def said(self, adapter: Adapter | None = None, **more: Any) -> str:
        return said(await body_of(await self.ask(adapter, **more)))


@pytest_asyncio.fixture(params=KINDS, scope="module", loop_scope="module")
async def subject(
    request: pytest.FixtureRequest, base: Base, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Subject]:
    kind, folder = request.param, tmp_path_factory.mktemp("data")
    more: dict[str, Any] = {}
    with ExitStack() as things, pytest.MonkeyPatch.context() as environment:
        if kind == "openai":
            environment.setenv("ELSEWHERE_KEY", "secret")
            more = {"upstream": things.enter_context(server_elsewhere(base, "secret")), "upstream_key_env": "ELSEWHERE_KEY"}
        if kind == "vllm":
            environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
            more = {"vllm_python": vllm_python() or installs.python_of("vllm", DataDir.default())}
        settings = Settings(data_dir=folder, threads=1, engine=kind, max_adapters=3, **more)
        (upstream,) = build(settings, base.id, "none", Memory()).upstreams
        assert isinstance(upstream, Driven)
        yield Subject(kind, base, upstream)
        await upstream.stop()


async def test_it_tells_how_it_starts_then_is_ready_and_lists_its_base(subject: Subject) -> None:
    assert (await subject.upstream.health()).status == "down"
    starting = asyncio.create_task(subject.upstream.start())
    seen = set()
    while not starting.done():
        seen.add((await subject.upstream.health()).status)
        await asyncio.sleep(0.05)
    await starting
    assert seen <= {"down", "loading", "ready"}
    assert "loading" in seen or subject.kind == "openai", "one that runs elsewhere is there at once"
    state = await subject.upstream.health()
    assert (state.status, state.progress, state.running, state.waiting) == ("ready", 1.0, 0, 0)
    assert subject.base.id in await subject.upstream.models()


async def test_it_answers_whole_and_in_pieces_alike(subject: Subject) -> None:
    whole = await body_of(await subject.ask())
    text, names = await stream_of(await subject.ask(stream=True))
    assert (text, names) == (said(whole), {subject.base.id})
    assert whole[1]["usage"]["completion_tokens"] == CHAT["max_tokens"]


async def test_an_error_comes_back_in_openais_shape(subject: Subject) -> None:
    status, body = await body_of(await subject.ask(temperature=-1))
    assert (status, body["error"]["param"]) == (400, "temperature")
    assert {"message", "type", "param", "code"} <= set(body["error"])


async def test_adapters_in_one_batch_answer_by_the_clients_names_or_are_refused_with_the_reason(
    subject: Subject, adapter: Make
) -> None:
    first, second = adapter_of(adapter(1)), adapter_of(adapter(2))
    if not subject.takes_adapters:
        with pytest.raises(InvalidRequest, match="takes no adapters") as caught:
            await subject.ask(first)
        assert caught.value.code == "adapter_not_supported"
        return
    alone = [await subject.said(each) for each in (None, first, second)]
    assert len(set(alone)) == 3
    answers = await asyncio.gather(*(
        subject.ask(each, name, stream=True, max_tokens=40)
        for each, name in ((None, ""), (first, "ft:one"), (second, "ft:two"), (first, "ft:one again"))
    ))
    texts, names = zip(*await asyncio.gather(*(stream_of(answer) for answer in answers)), strict=True)
    assert names == ({subject.base.id}, {"ft:one"}, {"ft:two"}, {"ft:one again"})
    assert [text.startswith(start) for text, start in zip(texts, (*alone, alone[1]), strict=True)] == [True] * 4
    whole = await (await subject.ask(first, "ft:one")).read()
    assert json.loads(whole)["model"] == "ft:one"
    assert first.name.encode() not in whole
    assert {first.name, second.name} <= set(await subject.upstream.models())


async def test_more_adapters_than_places_all_answer(subject: Subject, adapter: Make) -> None:
    if not subject.takes_adapters:
        pytest.skip("takes no adapters")
    adapters = [adapter_of(adapter(seed)) for seed in (1, 2, 3, 4, 5)]
    alone = [await subject.said(each) for each in adapters]
    assert len(set(alone)) == 5
    assert await asyncio.gather(*(subject.said(each) for each in adapters * 2)) == alone * 2
    assert len([name for name in await subject.upstream.models() if name.startswith("ad-")]) <= 3


async def test_an_adapter_that_the_engine_lost_is_registered_again_and_a_dropped_one_is_gone(
    subject: Subject, adapter: Make
) -> None:
    if not subject.takes_adapters:
        pytest.skip("takes no adapters")
    one = adapter_of(adapter(1))
    text = await subject.said(one)
    await subject.upstream._unload(one)
    assert one.name not in await subject.upstream.models()
    assert await subject.said(one) == text
    await subject.upstream.drop_adapter(one)
    assert one.name not in await subject.upstream.models()


async def test_an_adapter_whose_files_are_others_than_published_is_refused(subject: Subject, adapter: Make) -> None:
    if not subject.takes_adapters:
        pytest.skip("takes no adapters")
    with pytest.raises(InvalidRequest, match="not the one that was published"):
        await subject.ask(Adapter(Path(adapter(1).path), "0" * 64))
    with pytest.raises((InvalidRequest, NotFound), match="no adapter"):
        await subject.ask(Adapter(Path(adapter(1).path).parent / "nothing", "1" * 64))


async def test_it_tells_its_metrics(subject: Subject) -> None:
    text = await subject.upstream.metrics()
    assert ("# TYPE" in text) == subject.takes_adapters


async def test_after_a_crash_it_starts_again_with_its_adapters(subject: Subject, adapter: Make) -> None:
    if not subject.takes_adapters:
        pytest.skip("it is not ours to start")
    one = adapter_of(adapter(1))
    text = await subject.said(one)
    running = (await subject.ask(stream=True, max_tokens=400, temperature=1.5)).chunks()
    await anext(running)
    pid = kill(subject.upstream)
    last = [event async for event in running][-1].decode().strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_failed"
    # Nobody asks: it starts by itself.
    while subject.upstream.pid in {None, pid} or not subject.upstream.is_ready:
        await asyncio.sleep(0.1)
    while one.name not in await subject.upstream.models():
        await asyncio.sleep(0.1)
    assert not is_running(pid)
    assert await subject.said(one) == text


async def test_draining_lets_answers_end_and_takes_no_new_ones(subject: Subject) -> None:
    answer = await subject.ask(stream=True, max_tokens=300)
    reading = asyncio.create_task(stream_of(answer))
    draining = asyncio.create_task(subject.upstream.drain(600))
    await asyncio.sleep(0)
    with pytest.raises(Busy) as caught:
        await subject.ask()
    assert caught.value.code == "engine_draining"
    assert (await subject.upstream.health()).status == "draining"
    await draining
    assert reading.done() or await asyncio.wait_for(reading, 5)
    assert len((await reading)[0]) > 0


async def test_stopped_it_leaves_no_process(subject: Subject) -> None:
    pid = subject.upstream.pid
    await subject.upstream.stop()
    assert (await subject.upstream.health()).status == "down"
    assert pid is None or not is_running(pid)
