"""A model of this machine, asked without a server: an engine is started for it, and gone afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tunesmith.cli.database import opened
from tunesmith.completer import Completion, failure, to_completion
from tunesmith.db import models as fine_tuned
from tunesmith.errors import NotFound
from tunesmith.models.catalog import find_base
from tunesmith.models.whole import is_whole, read_trained
from tunesmith.serving.routing import Adapter, Router, Target, base_target, to_target, whole_target
from tunesmith.settings import Settings
from tunesmith.types import Message, Quantization


def find_target(model: str, data_dir: Path, quantization: Quantization = "none") -> Target:
    """What `model` means: a run, the folder of an adapter or a model, a fine-tuned model's id, or a base. Raises NotFound."""
    for folder in (Path(model) / "artifacts" / "adapter", Path(model) / "artifacts" / "model", Path(model)):
        if is_whole(folder):
            read_trained(folder)
            return whole_target(model, folder.absolute())
        if (folder / "adapter_config.json").is_file():
            info = read_trained(folder)
            return Target(model, info.base, info.quantization, Adapter(folder.absolute(), info.content_hash))
    if (Path(model) / "recipe.json").is_file():
        raise NotFound(f"The run in {model} has made no adapter yet.", hint=f"Go on with `tunesmith train --resume {model}`.")
    if model.startswith("ft:"):
        with opened(data_dir) as database, database.read() as connection:
            return to_target(fine_tuned.get(connection, model), data_dir.absolute())
    find_base(model, Settings(data_dir=data_dir).dirs.models)
    return base_target(model, quantization)


class LocalModel:
    """A Completer for one target; the engine starts at the first question."""

    def __init__(self, router: Router, target: Target):
        self._router = router
        self._target = target

    async def complete(self, model: str, messages: list[Message], **sampling: Any) -> Completion:
        answer = await self._router.chat(self._target, {"messages": messages, **sampling})
        body = await answer.read()
        if answer.status >= 400:
            raise failure(answer.status, body)
        return to_completion(body)


@asynccontextmanager
async def local_model(target: Target, data_dir: Path, threads: int = 0) -> AsyncIterator[LocalModel]:
    """The target, ready to answer; its engine ends with the block."""
    settings = Settings(data_dir=data_dir, threads=threads)
    settings.dirs.make()
    router = Router(settings)
    try:
        await router.ready(target)
        yield LocalModel(router, target)
    finally:
        await router.stop()
