"""The engine's one thread: takes orders, schedules a step, computes it, hands on what is new. Knows no HTTP.

Other threads only put orders into its inbox. A sequence that fails, fails alone: when a step breaks, its sequences are computed
one by one, and only those that break it again end with an error.
"""

import queue
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tunesmith.engine.scheduler import Limits, Scheduler, Step, Work
from tunesmith.engine.sequence import Sampled, Sequence
from tunesmith.errors import EngineFailed, TunesmithError
from tunesmith.models.artifact import AdapterInfo

T = TypeVar("T")
Order = Callable[[], None]


class LoadsAdapters(Protocol):
    def add(self, info: AdapterInfo) -> int: ...

    def remove(self, serial: int) -> None: ...


class Computes(Protocol):
    """What the core needs of a runner; the tests' one has no torch in it."""

    adapters: LoadsAdapters
    limits: Limits

    def run(self, step: Step, running: list[Sequence]) -> list[Sampled | None]:
        """Makes the copies, computes the works. One answer for each work; None for one that does not reach its sequence's end."""
        ...


@dataclass(frozen=True)
class Load:
    """How busy the engine is."""

    running: int
    waiting: int
    generated_tokens: int


class Core:
    """Runs until `stop`. `start` and the orders may be called from any thread; sinks are called from the core's own."""

    def __init__(
        self,
        runner: Computes,
        *,
        on_thread_start: Callable[[], None] = lambda: None,
        on_death: Callable[[], None] = lambda: None,
    ):
        """`on_death` is called if the thread ends by a fault of its own, for nobody would be answered from then on."""
        self._runner = runner
        self._scheduler = Scheduler(runner.limits)
        self._inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._dropped: set[int] = set()
        self._is_stopping = False
        self._generated = 0
        self._on_thread_start = on_thread_start
        self._on_death = on_death
        self._thread = threading.Thread(target=self._loop, name="engine-core", daemon=True)

    # -- orders, from other threads -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        def order() -> None:
            self._is_stopping = True

        self._inbox.put(order)
        self._thread.join()

    def add(self, sequence: Sequence) -> None:
        self._inbox.put(lambda: self._scheduler.add(sequence))

    def abort(self, sequence: Sequence) -> None:
        """Ends a sequence that nobody waits for; one that has finished is left alone."""
        self._inbox.put(lambda: self._end(sequence))

    def add_adapter(self, info: AdapterInfo) -> "Future[int]":
        """The adapter's serial number, or the error why it cannot be loaded."""
        return self._call(lambda: self._runner.adapters.add(info))

    def drop_adapter(self, serial: int) -> None:
        """Frees an adapter when the last sequence that uses it has ended."""
        self._inbox.put(lambda: self._dropped.add(serial))

    def load(self) -> Load:
        return Load(len(self._scheduler.running), len(self._scheduler.waiting), self._generated)

    def _call(self, function: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()

        def order() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  (crosses to the caller's thread, where it is raised)
                future.set_exception(error)

        self._inbox.put(order)
        return future

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        self._on_thread_start()
        try:
            while not self._is_stopping:
                self._take_orders()
                self._free_adapters()
                step = self._scheduler.schedule()
                if step.copies or step.works:
                    self._compute(step)
        except Exception:  # noqa: BLE001  (the thread's outermost boundary)
            traceback.print_exc()
            self._on_death()

    def _take_orders(self) -> None:
        """All orders that wait; when there is no other work, waits for one."""
        if self._scheduler.is_idle and not self._is_stopping:
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()

    def _free_adapters(self) -> None:
        if not self._dropped:
            return
        used = {sequence.adapter for sequence in (*self._scheduler.running, *self._scheduler.waiting)}
        for serial in self._dropped - used:
            self._runner.adapters.remove(serial)
            self._dropped.discard(serial)

    def _compute(self, step: Step) -> None:
        try:
            sampled = self._runner.run(step, self._scheduler.running)
        except Exception:  # noqa: BLE001  (the boundary between one batch and the engine's life)
            sampled = self._one_by_one(step.works)
        self._scheduler.advance(step.works)
        for work, answer in zip(step.works, sampled, strict=True):
            if answer is not None and not work.sequence.is_finished:
                self._take(work.sequence, answer)
        for work in step.works:
            if work.sequence.is_finished:
                self._scheduler.remove(work.sequence)

    def _one_by_one(self, works: list[Work]) -> list[Sampled | None]:
        """The copies were made by the step that broke."""
        sampled: list[Sampled | None] = []
        for work in works:
            try:
                sampled += self._runner.run(Step([], [work]), self._scheduler.running)
            except Exception as error:  # noqa: BLE001  (the boundary between one request and the others)
                failure = EngineFailed(f"The engine failed on this request: {type(error).__name__}: {error}.")
                work.sequence.finish("error", failure)
                sampled.append(None)
        return sampled

    def _take(self, sequence: Sequence, sampled: Sampled) -> None:
        if isinstance(sampled, TunesmithError):
            sequence.finish("error", sampled)
        elif sequence.sampling.max_tokens == 0:
            sequence.finish("length")
        else:
            self._generated += 1
            sequence.append(sampled)

    def _end(self, sequence: Sequence) -> None:
        if not sequence.is_finished:
            sequence.finish("abort")
        self._scheduler.remove(sequence)
