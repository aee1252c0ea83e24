"""Tunesmith: fine-tune, evaluate and serve open models on your own machines.

    import tunesmith
    tunesmith.train({"base": "tunesmith/tiny", "data": {"train": "rows.jsonl"}}, folder="runs/first")
    tunesmith.evaluate("runs/first", file="heldout.jsonl")
    with tunesmith.serve() as server: ...      # server.base_url, server.api_key for the openai client

Everything is imported when it is first called, so that `import tunesmith` costs nothing.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.cli.local_server import LocalServer
    from tunesmith.recipes.run import Recipe


def train(recipe: "Recipe | dict[str, Any] | str | Path", folder: str | Path | None = None) -> dict[str, Any]:
    """Runs a recipe (an object, or the path of a .toml or .json file) in `folder`, a new one if None; returns its result.

    The result names the adapter by a path relative to `folder`. Raises InvalidRecipe, InvalidRequest and TrainingFailed.
    """
    from tunesmith.cli.local_run import train as run

    return run(recipe, folder)


def evaluate(model: str | Path, **options: Any) -> dict[str, Any]:
    """Scores of a base, a run folder, an adapter's folder or a fine-tuned model: see `tunesmith.cli.eval.evaluate`."""
    from tunesmith.cli.eval import evaluate as run

    return run(model, **options)


def serve(data_dir: Path | str = ".tunesmith", *, bases: tuple[str, ...] = ()) -> "LocalServer":
    """A server of one's own on loopback, as a child process; use it with `with`, or call its `stop`."""
    from tunesmith.cli.local_server import LocalServer

    return LocalServer(data_dir, bases=bases)


class _Face(ModuleType):
    """`train` is a function here and a room of the package too; importing the room must not hide the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "train" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
