"""Sends a run's numbers to the services of its recipe under OpenAI's names, beside the events that it writes. Trains nothing.

A thread sends, so that a slow service slows no step. One that does not answer must not end a training: it becomes a warning, and
the run goes on without it. What a service wants stands in `trackers/`, one file each, imported when a recipe names it.
"""

import importlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder

NAMES = {
    "step": {"loss": "train_loss", "token_accuracy": "train_mean_token_accuracy", "learning_rate": "learning_rate"},
    "eval": {"loss": "full_valid_loss", "token_accuracy": "full_valid_mean_token_accuracy"},
}
"""Event -> our name of a number -> OpenAI's. Other numbers of a method's own keep their names."""
OWN = {
    "step": frozenset({"step", "total_steps", "epoch", "tokens_seen", "tokens_per_second", "memory_bytes", "eta_seconds"}),
    "eval": frozenset({"step", "total_steps", "rows"}),
}
"""Fields of these events that say how far the run is, and not how well it learns."""
CLOSE_SECONDS = 30.0
"""For the last numbers."""

Emit = Callable[..., Any]
Log = Callable[[dict[str, float], int], Any]
"""Sends numbers by name, of a step."""


@contextmanager
def tracked(recipe: Recipe, folder: RunFolder, emit: Emit) -> Iterator[Emit]:
    """`emit`, which tells every service of `recipe.tracking` the numbers too. A resumed attempt goes on in the same runs."""
    with ExitStack() as stack:
        senders = []
        for number, wanted in enumerate(recipe.tracking):
            module = importlib.import_module(f"tunesmith.train.trackers.{wanted.type}")
            try:
                log = stack.enter_context(_quietly(module, emit, module.started(wanted, number, recipe, folder)))
            except module.ERRORS as error:
                emit("warning", message=_lost(module.NAME, error))
                continue
            senders.append(stack.enter_context(_Sender(module, log, emit).sending()))

        def told(type: str, **fields: Any) -> Any:
            if type in NAMES:
                numbers = numbers_of(type, fields)
                for sender in senders:
                    sender.send(numbers, fields["step"])
            return emit(type, **fields)

        yield told


def numbers_of(type: str, fields: dict[str, Any]) -> dict[str, float]:
    """The numbers of a step or an evaluation under the names that services are told."""
    names = NAMES[type]
    prefix = "full_valid_" if type == "eval" else ""
    kept = {name: value for name, value in fields.items() if name not in OWN[type] and isinstance(value, int | float)}
    return {names.get(name, f"{prefix}{name}"): float(value) for name, value in kept.items()}


@contextmanager
def _quietly(module: Any, emit: Emit, run: Any) -> Iterator[Log]:
    """A service's run, whose end may fail like its begin."""
    log = run.__enter__()
    try:
        yield log
    finally:
        try:
            run.__exit__(None, None, None)
        except module.ERRORS as error:
            emit("warning", message=_lost(module.NAME, error))


class _Sender:
    """Sends one service's numbers in a thread, in order, until one cannot be sent."""

    def __init__(self, module: Any, log: Log, emit: Emit):
        self._module, self._log, self._emit = module, log, emit
        self._waiting: queue.SimpleQueue[tuple[dict[str, float], int] | None] = queue.SimpleQueue()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._work, name=f"tracking-{module.NAME}", daemon=True)

    @contextmanager
    def sending(self) -> "Iterator[_Sender]":
        self._thread.start()
        try:
            yield self
        finally:
            self._waiting.put(None)
            self._thread.join(CLOSE_SECONDS)
            self._tell()

    def send(self, numbers: dict[str, float], step: int) -> None:
        self._waiting.put((numbers, step))
        self._tell()

    def _tell(self) -> None:
        """In the run's thread, for events have one writer."""
        if self._lost is not None:
            self._emit("warning", message=self._lost)
            self._lost = None

    def _work(self) -> None:
        while (found := self._waiting.get()) is not None:
            try:
                self._log(*found)
            except self._module.ERRORS as error:
                self._lost = _lost(self._module.NAME, error)
                return


def _lost(name: str, error: Exception) -> str:
    return f"{name} cannot be reached, so this run is not tracked there: {error}"
