"""Many models on few engines: adapters come and go under load, are swapped while streams run, and a dead engine fails nobody.

Real engines. The load is small; what must hold is that nothing fails and nothing is mixed up.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from serving.parts import CHAT, ask, engines, kill, said, stream_of, tuned
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.serving.routing import Router, Target, base_target
from tunesmith.settings import Settings

Make = Callable[..., AdapterInfo]
pytestmark = pytest.mark.asyncio(loop_scope="module")
NUM_PLACES, NUM_ADAPTERS, AT_ONCE, NUM_REQUESTS = 4, 16, 8, 160


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    router = Router(Settings(data_dir=tmp_path_factory.mktemp("data"), threads=1, max_adapters=NUM_PLACES))
    yield router
    await router.stop()


async def test_many_adapters_through_few_places_under_skewed_traffic_none_fails(
    router: Router, base: Base, adapter: Make
) -> None:
    targets = [tuned(base, adapter(seed), f"ft:{seed}") for seed in range(NUM_ADAPTERS)]
    alone = {target.model_id: said(await ask(router, target)) for target in targets}
    assert len(set(alone.values())) == NUM_ADAPTERS
    # Zipf: the k-th most wanted is asked for 1/k as often as the first.
    weights = [1 / rank for rank in range(1, NUM_ADAPTERS + 1)]
    order = iter(random.Random(0).choices(targets, weights, k=NUM_REQUESTS))
    answered = 0

    async def client() -> None:
        nonlocal answered
        for target in order:
            status, body = await ask(router, target)
            assert (said((status, body)), body["model"]) == (alone[target.model_id], target.model_id)
            answered += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    assert answered == NUM_REQUESTS
    (engine,) = engines(router, base)
    assert len(await engine.models()) <= 1 + NUM_PLACES
    assert engine.in_flight == 0


async def test_a_model_that_moves_to_another_content_while_streams_run_mixes_nothing(
    router: Router, base: Base, adapter: Make
) -> None:
    versions = [tuned(base, adapter(seed), "ft:moving") for seed in (1, 2)]
    whole = [said(await ask(router, version, max_tokens=30)) for version in versions]
    assert whole[0] != whole[1]
    now = itertools.cycle(versions)
    current = next(now)

    async def client() -> list[str]:
        texts = []
        for _ in range(10):
            text, names = await stream_of(await router.chat(current, CHAT | {"stream": True, "max_tokens": 30}))
            assert names == {"ft:moving"}
            texts.append(text)
        return texts

    async def mover() -> None:
        nonlocal current
        while True:
            before, current = current, next(now)
            await router.drop(before)  # what streams still use goes when they have ended
            await asyncio.sleep(0.01)

    moving = asyncio.create_task(mover())
    texts = [text for found in await asyncio.gather(*(client() for _ in range(4))) for text in found]
    moving.cancel()
    assert set(texts) == set(whole), "a stream of neither version"


async def test_a_second_base_runs_beside_the_first_and_is_taken_away_when_its_answers_have_ended(
    router: Router, base: Base, small_base: Base
) -> None:
    router.add(small_base.id)
    first, second = await asyncio.gather(ask(router, base_target(base.id)), ask(router, base_target(small_base.id)))
    assert said(first) != said(second)
    assert {(state.base, state.state.status) for state in await router.states()} == {
        (base.id, "ready"), (small_base.id, "ready"),
    }
    stream = await router.chat(base_target(small_base.id), CHAT | {"stream": True, "max_tokens": 150})
    reading = asyncio.create_task(stream_of(stream))
    (engine,) = engines(router, small_base)
    await router.remove(small_base.id)
    assert reading.done() or await asyncio.wait_for(reading, 5)
    assert engine.pid is None
    assert [state.base for state in await router.states()] == [base.id]


async def test_while_a_training_runs_engines_have_fewer_threads(router: Router, base: Base, monkeypatch: Any) -> None:
    (engine,) = engines(router, base)
    told: list[int] = []
    monkeypatch.setattr(router, "_num_threads", lambda: 1)
    monkeypatch.setattr(engine, "set_threads", lambda number: asyncio.sleep(0, told.append(number)))
    for is_training in (True, True, False):
        router.training(is_training)
    while len(told) < 2:
        await asyncio.sleep(0)
    monkeypatch.undo()
    await engine.set_threads(1)  # the engine itself obeys
    assert said(await ask(router, base_target(base.id)))


async def test_one_of_two_engines_killed_under_load_fails_no_request_that_had_not_begun(
    tmp_path_factory: pytest.TempPathFactory, base: Base, adapter: Make
) -> None:
    router = Router(Settings(data_dir=tmp_path_factory.mktemp("two"), threads=1, replicas=2))
    try:
        targets: list[Target] = [base_target(base.id), tuned(base, adapter(1), "ft:1")]
        await (await router.ready(targets[0])).start()
        alone = [said(await ask(router, target, max_tokens=60)) for target in targets]
        first, second = engines(router, base)
        killed = [0]

        async def client(number: int) -> None:
            for _ in range(8):
                assert said(await ask(router, targets[number % 2], max_tokens=60)) == alone[number % 2]

        async def killer() -> None:
            while not first.in_flight:
                await asyncio.sleep(0.005)
            killed[0] = kill(first)

        clients = asyncio.gather(*(client(number) for number in range(8)))
        while not (first.in_flight and second.in_flight):
            await asyncio.sleep(0)
        await asyncio.gather(killer(), clients)
        while not first.is_ready:
            await asyncio.sleep(0.05)
        assert first.pid not in {None, killed[0]}
        assert [state.replica for state in await router.states()] == [0, 1]
    finally:
        await router.stop()
