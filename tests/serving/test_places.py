"""Places for adapters: loaded once however many ask, the least recently used gives way, none that is in use is taken."""

import asyncio
from pathlib import Path

import pytest

from tunesmith.errors import Busy, EngineFailed
from tunesmith.serving.places import Places
from tunesmith.serving.upstream import Adapter


def adapter(number: int) -> Adapter:
    return Adapter(Path("nowhere"), f"{number:064x}"[::-1])


class Engine:
    """What an engine has loaded, and everything that it was told; it takes a moment for each."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.told: list[str] = []
        self.is_broken = False

    async def load(self, adapter: Adapter) -> None:
        await asyncio.sleep(0)
        if self.is_broken:
            raise EngineFailed("broken")
        assert adapter.name not in self.loaded
        self.loaded.add(adapter.name)
        self.told.append(f"+{adapter.name[3]}")

    async def unload(self, adapter: Adapter) -> None:
        await asyncio.sleep(0)
        self.loaded.remove(adapter.name)
        self.told.append(f"-{adapter.name[3]}")


def places(engine: Engine, num: int = 2, wait: float = 60.0) -> Places:
    return Places(num, wait, engine.load, engine.unload)


def test_an_adapter_is_named_by_its_content() -> None:
    assert Adapter(Path("a"), "0123456789abcdef" * 4).name == "ad-0123456789abcdef"


async def test_many_who_ask_at_once_load_once_and_the_least_recently_used_gives_way() -> None:
    engine = Engine()
    all_of_them = places(engine)
    for place in await asyncio.gather(*(all_of_them.hold(adapter(1)) for _ in range(5))):
        all_of_them.release(place)
    for number in (2, 1, 3):
        all_of_them.release(await all_of_them.hold(adapter(number)))
    assert engine.told == ["+1", "+2", "-2", "+3"]
    assert [each.name[3] for each in all_of_them.adapters] == ["1", "3"]


async def test_one_in_use_is_not_taken_and_who_needs_a_place_waits_for_it() -> None:
    engine = Engine()
    all_of_them = places(engine)
    held = [await all_of_them.hold(adapter(number)) for number in (1, 2)]
    waiting = [asyncio.create_task(all_of_them.hold(adapter(number))) for number in (3, 4)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    all_of_them.release(held[1])
    third = await waiting[0]
    assert engine.told == ["+1", "+2", "-2", "+3"]
    assert not waiting[1].done()
    all_of_them.release(third)
    all_of_them.release(await waiting[1])
    assert engine.loaded == {adapter(1).name, adapter(4).name}


async def test_the_wait_has_an_end() -> None:
    engine = Engine()
    all_of_them = places(engine, num=1, wait=0.01)
    await all_of_them.hold(adapter(1))
    with pytest.raises(Busy, match="All 1 places") as caught:
        await all_of_them.hold(adapter(2))
    assert caught.value.code == "no_adapter_place"


async def test_what_cannot_be_loaded_takes_no_place_and_is_tried_again() -> None:
    engine = Engine()
    all_of_them = places(engine, num=1)
    engine.is_broken = True
    results = await asyncio.gather(*(all_of_them.hold(adapter(1)) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [EngineFailed] * 3
    engine.is_broken = False
    all_of_them.release(await all_of_them.hold(adapter(1)))
    assert engine.told == ["+1"]


async def test_who_leaves_while_it_loads_does_not_stop_it_for_others_nor_keeps_the_place() -> None:
    engine = Engine()
    all_of_them = places(engine, num=1)
    leaving, staying = (asyncio.create_task(all_of_them.hold(adapter(1))) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    all_of_them.release(await staying)
    all_of_them.release(await all_of_them.hold(adapter(2)))
    assert engine.told == ["+1", "-1", "+2"]


async def test_a_dropped_adapter_goes_when_its_last_answer_has_ended() -> None:
    engine = Engine()
    all_of_them = places(engine)
    place = await all_of_them.hold(adapter(1))
    all_of_them.drop(adapter(1))
    await all_of_them.settle()
    assert engine.loaded
    all_of_them.release(place)
    await all_of_them.settle()
    assert not engine.loaded
    all_of_them.drop(adapter(1))


async def test_an_engine_that_is_gone_has_forgotten_all_and_late_releases_do_no_harm() -> None:
    engine = Engine()
    all_of_them = places(engine, num=1)
    old = await all_of_them.hold(adapter(1))
    all_of_them.forget()
    engine.loaded.clear()
    new = await all_of_them.hold(adapter(1))
    all_of_them.release(old)
    waiting = asyncio.create_task(all_of_them.hold(adapter(2)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done(), "the new holder's place was taken"
    all_of_them.release(new)
    all_of_them.release(await waiting)
    assert engine.told == ["+1", "+1", "-1", "+2"]
