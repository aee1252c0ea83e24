"""The engine's one thread: takes orders, schedules a step, computes it, hands on what is new. Knows no HTTP.

Other threads only put orders into its inbox. A sequence that fails, fails alone: when a step breaks, its sequences are computed
one by one, and only those that break it again end with an error. Only when copies break do all fail whose rows may be spoilt.
"""

import queue
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Protocol, TypeVar, get_args

from tunesmith.engine.deadlines import Deadlines
from tunesmith.engine.scheduler import Copy, Limits, Scheduler, Step, Work
from tunesmith.engine.sequence import FinishReason, Sampled, Sequence
from tunesmith.engine.stats import Stats
from tunesmith.errors import Busy, DeadlineExceeded, EngineFailed, TunesmithError
from tunesmith.models.artifact import AdapterInfo

T = TypeVar("T")
Order = Callable[[], None]


class LoadsAdapters(Protocol):
    def add(self, info: AdapterInfo) -> int: ...

    def remove(self, serial: int) -> None: ...

    def num_virtual(self, serial: int) -> int:
        """Positions of the adapter's soft prompt; 0 for LoRA. May be called from any thread."""
        ...


class Computes(Protocol):
    """What the core needs of a runner; the tests' one has no torch in it."""

    adapters: LoadsAdapters
    limits: Limits

    def run(self, step: Step, running: list[Sequence]) -> list[Sampled | None]:
        """Makes the copies, computes the works. One answer for each work; None for one that does not reach its sequence's end.

        The core calls it with the copies alone first, so that a broken step never makes them twice.
        """
        ...


class Core:
    """Runs until `stop`. `start` and the orders may be called from any thread; sinks are called from the core's own."""

    def __init__(
        self,
        runner: Computes,
        *,
        on_thread_start: Callable[[], None] = lambda: None,
        on_death: Callable[[], None] = lambda: None,
        set_threads: Callable[[int], None] = lambda number: None,
        clock: Callable[[], float] = monotonic,
    ):
        """`on_death` is called if the thread ends by a fault of its own, for nobody would be answered from then on.

        `set_threads` is called in the core's thread, for OpenMP keeps the number for each thread that calls it.
        """
        self._runner = runner
        self._scheduler = Scheduler(runner.limits)
        self._inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._dropped: set[int] = set()
        self._deadlines = Deadlines()
        self._drained: list[Future[None]] = []
        """Who waits until nothing runs any more. From the first on, nobody new is let in."""
        self._is_stopping = False
        self._num_generated = 0
        self._num_refused = 0
        self._num_steps = 0
        self._finished: Counter[str] = Counter({reason: 0 for reason in get_args(FinishReason)})
        self._on_thread_start = on_thread_start
        self._on_death = on_death
        self._set_threads = set_threads
        self._clock = clock
        self.on_finish: Callable[[Sequence], None] = lambda sequence: None
        """Called in the core's thread with each sequence that was let in and has ended. Set before `start`."""
        self._thread = threading.Thread(target=self._loop, name="engine-core", daemon=True)

    # -- orders, from other threads -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        def order() -> None:
            self._is_stopping = True

        self._inbox.put(order)
        self._thread.join()

    def drain(self) -> "Future[None]":
        """Lets nobody new in; done when the last sequence has ended."""
        done: Future[None] = Future()
        self._inbox.put(lambda: self._drained.append(done))
        return done

    def set_threads(self, number: int) -> "Future[None]":
        """How many threads compute from the next step on."""
        return self._call(lambda: self._set_threads(number))

    def add(self, sequence: Sequence) -> None:
        """Lets a sequence in; one that is refused ends with the error why: Overloaded, Busy, ContextTooLong, InvalidRequest."""
        self._inbox.put(lambda: self._admit(sequence))

    def abort(self, sequence: Sequence) -> None:
        """Ends a sequence that nobody waits for; one that has finished is left alone."""
        self._inbox.put(lambda: self._end(sequence, "abort"))

    def add_adapter(self, info: AdapterInfo) -> "Future[int]":
        """The adapter's serial number, or the error why it cannot be loaded."""
        return self._call(lambda: self._runner.adapters.add(info))

    def drop_adapter(self, serial: int) -> None:
        """Frees an adapter when the last sequence that uses it has ended."""
        self._inbox.put(lambda: self._dropped.add(serial))

    def num_virtual(self, serial: int) -> int:
        """Positions of an adapter's soft prompt: so many VIRTUAL tokens stand before a prompt for it."""
        return self._runner.adapters.num_virtual(serial)

    def stats(self) -> Stats:
        """Each number is true, but they are read one after the other while the engine works."""
        scheduler = self._scheduler
        blocks = scheduler.prefixes.blocks
        return Stats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            waiting_batch=scheduler.waiting.count("batch"),
            refused=self._num_refused,
            prompt_tokens=scheduler.num_prompt_tokens,
            cached_prompt_tokens=scheduler.num_cached_prompt_tokens,
            generated_tokens=self._num_generated,
            preemptions=scheduler.num_preemptions,
            finished=dict(self._finished),
            steps=self._num_steps,
            prefix_queried_tokens=blocks.num_queried_tokens,
            prefix_hit_tokens=blocks.num_hit_tokens,
            blocks_used=blocks.used,
            blocks_total=blocks.total,
            rows=scheduler.limits.max_sequences,
        )

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
                self._end_late()
                self._free_adapters()
                step = self._scheduler.schedule()
                if step.copies and not self._copy(step.copies):
                    continue
                if step.works:
                    self._compute(step.works)
        except Exception:  # noqa: BLE001  (the thread's outermost boundary)
            traceback.print_exc()
            self._on_death()

    def _take_orders(self) -> None:
        """All orders that wait; when there is no other work, waits for one."""
        self._tell_drained()
        if self._scheduler.is_idle and not self._is_stopping:
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()
        self._tell_drained()

    def _tell_drained(self) -> None:
        if self._drained and self._scheduler.is_idle:
            for done in self._drained:
                if not done.done():
                    done.set_result(None)

    def _admit(self, sequence: Sequence) -> None:
        sequence.times.arrived = self._clock()
        try:
            if self._drained:
                raise Busy("The engine is about to stop.", hint="Ask again: another takes its place.", code="engine_draining")
            self._scheduler.add(sequence)
        except TunesmithError as error:
            self._num_refused += 1
            sequence.finish("error", error)
            return
        self._deadlines.add(sequence)

    def _end_late(self) -> None:
        """Ends the sequences whose deadline has passed, running or waiting."""
        if len(self._deadlines):
            for sequence in self._deadlines.passed(self._clock()):
                message = "The answer was not done in the time that was given for it."
                self._end(sequence, "error", DeadlineExceeded(message, hint="Ask for fewer tokens, or give it more time."))

    def _free_adapters(self) -> None:
        if not self._dropped:
            return
        used = {sequence.adapter for sequence in (*self._scheduler.running, *self._scheduler.waiting)}
        for serial in self._dropped - used:
            self._runner.adapters.remove(serial)
            self._dropped.discard(serial)

    def _copy(self, copies: list[Copy]) -> bool:
        """Makes a step's copies. Where that breaks, it is not known what rows and blocks hold: all that run fail."""
        try:
            self._runner.run(Step(copies, []), self._scheduler.running)
        except Exception as error:  # noqa: BLE001  (the boundary between one batch and the engine's life)
            traceback.print_exc()
            for sequence in list(self._scheduler.running):
                self._end(sequence, "error", failure(error))
            self._scheduler.forget_cache()
            return False
        return True

    def _compute(self, works: list[Work]) -> None:
        self._num_steps += 1
        began = self._clock()
        reported = [(len(work.sequence.prompt_logprobs), work.sequence.embedding) for work in works]
        try:
            sampled = self._runner.run(Step([], works), self._scheduler.running)
        except Exception:  # noqa: BLE001  (the boundary between one batch and the engine's life)
            traceback.print_exc()
            for work, (num_logprobs, embedding) in zip(works, reported, strict=True):
                del work.sequence.prompt_logprobs[num_logprobs:]
                work.sequence.embedding = embedding
            sampled = [self._alone(work) for work in works]
        now = self._clock()
        good = [work for work, answer in zip(works, sampled, strict=True) if not isinstance(answer, TunesmithError)]
        self._scheduler.advance(good)
        for work, answer in zip(works, sampled, strict=True):
            times = work.sequence.times
            times.begun = times.begun or began
            if answer is not None:
                times.first_token = times.first_token or now
                self._take(work.sequence, answer)

    def _alone(self, work: Work) -> Sampled | None:
        try:
            return self._runner.run(Step([], [work]), self._scheduler.running)[0]
        except Exception as error:  # noqa: BLE001  (the boundary between one request and the others)
            return failure(error)

    def _take(self, sequence: Sequence, sampled: Sampled) -> None:
        if isinstance(sampled, TunesmithError):
            sequence.finish("error", sampled)
        elif sequence.sampling.max_tokens == 0 or sequence.wants_embedding:
            sequence.finish("length")
        else:
            self._num_generated += 1
            sequence.append(sampled)
        if sequence.is_finished:
            self._leave(sequence)

    def _end(self, sequence: Sequence, reason: FinishReason, error: TunesmithError | None = None) -> None:
        """Ends a sequence before it is done; one that has finished is left alone."""
        if not sequence.is_finished:
            sequence.finish(reason, error)
            self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self._finished[str(sequence.finish_reason)] += 1
        self._scheduler.remove(sequence)
        sequence.times.finished = self._clock()
        self.on_finish(sequence)


def failure(error: Exception) -> EngineFailed:
    return EngineFailed(f"The engine failed on this request: {type(error).__name__}: {error}.")
