"""A model all of whose weights were trained is answered by an engine of its own; adapters of the old base are refused on it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serving.parts import ask, said, tuned
from tunesmith.db.models import FineTuned
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.models.loader import load_base
from tunesmith.models.whole import read_trained, save_whole
from tunesmith.serving.routing import Router, to_target, whole_target
from tunesmith.settings import Settings


def trained(base: Base, folder: Path, seed: int) -> AdapterInfo:
    """The base with all weights moved a little."""
    torch.manual_seed(seed)
    model = load_base(base, "none")
    tensors = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return save_whole(model, tensors, folder, base, dtype="float32")


@pytest.mark.asyncio
async def test_a_whole_model_has_an_engine_of_its_own_that_goes_when_it_is_dropped(
    base: Base, adapter: Callable[..., AdapterInfo], tmp_path: Path
) -> None:
    info = trained(base, tmp_path / "runs" / "a" / "model", 1)
    assert read_trained(Path(info.path)) == info
    target = to_target(FineTuned("ft:a", base.id, "none", "runs/a/model", info.content_hash, "job", 0), tmp_path)
    assert target == whole_target("ft:a", tmp_path / "runs" / "a" / "model")
    router = Router(Settings(data_dir=tmp_path, threads=1))
    try:
        old = tuned(base, adapter(1), "ft:old")
        answers = [await ask(router, asked) for asked in (target, old)]
        assert len({said(answer) for answer in answers}) == 2
        assert [body["model"] for _, body in answers] == ["ft:a", "ft:old"]
        with pytest.raises(InvalidRequest, match="was trained on another revision"):
            await ask(router, replace(old, base=target.base))
        assert {state.base for state in await router.states()} == {base.id, info.path}
        await router.drop(target)
        assert {state.base for state in await router.states()} == {base.id}
    finally:
        await router.stop()
