"""An engine that does not fit is refused with the figures, and what starting engines were promised counts."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from tunesmith.errors import Busy
from tunesmith.models.catalog import find_base
from tunesmith.paths import TINY
from tunesmith.serving.memory import GIB, Memory, free_bytes, need_bytes
from tunesmith.serving.routing import Router, base_target
from tunesmith.settings import Settings


def make_huge_base(folder: Path) -> Path:
    """A base of 50 G parameters by its headers; the file has a hole in place of the numbers."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder / name)
    header = json.dumps({"w": {"dtype": "F16", "shape": [50_000, 1_000_000], "data_offsets": [0, 100_000_000_000]}}).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 100_000_000_000)
    return folder


def test_the_need_follows_from_parameters_and_precision(tmp_path: Path) -> None:
    base = find_base(str(make_huge_base(tmp_path / "huge")))
    full, nf4 = (need_bytes(base, precision, is_gpu=False) for precision in ("none", "nf4"))  # type: ignore[arg-type]
    assert full > 50e9 * 4 > nf4 > 50e9
    assert need_bytes(base, "none", is_gpu=True) < full < need_bytes(base, "none", is_gpu=False, is_int8=True)
    tiny = need_bytes(find_base("tunesmith/tiny"), "none", is_gpu=False)
    assert 0.5 * GIB < tiny < 1.5 * GIB


def test_free_memory_is_what_the_machine_has() -> None:
    assert 0 < free_bytes() < 2**50


def test_what_was_promised_to_others_is_not_free() -> None:
    memory = Memory(lambda: 10 * GIB)
    with memory.promised("The engine for a", 6 * GIB):
        with pytest.raises(Busy, match=r"The engine for b does not fit: it needs about 5.0 GiB, and 4.0 GiB are free beside 6.0"):
            memory.check("The engine for b", 5 * GIB)
        memory.check("The engine for c", 4 * GIB)
    memory.check("The engine for b", 5 * GIB)


async def test_a_base_that_does_not_fit_is_refused_when_it_is_added_and_when_it_is_asked(tmp_path: Path) -> None:
    huge = str(make_huge_base(tmp_path / "huge"))
    router = Router(Settings(data_dir=tmp_path, bases=(huge,)))
    with pytest.raises(Busy, match=r"needs about 18\d\.\d GiB") as caught:
        router.add(huge)
    assert caught.value.code == "does_not_fit"
    with pytest.raises(Busy, match="does not fit"):
        await router.chat(base_target(huge), {"messages": []})
    (state,) = await router.states()
    assert (state.state.status, "does not fit" in state.state.stage) == ("down", True)
    await router.stop()
