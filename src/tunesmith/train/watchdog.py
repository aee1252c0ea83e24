"""Ends a worker whose step hangs: a hung process saves nothing and frees no GPU; another one goes on from the last checkpoint.

A step is hung when it takes much longer than the steps before it. What every thread was doing then goes to standard error, and
the reason last, where whoever started the worker looks for it. Seconds in which the whole process was stopped do not count.
"""

import faulthandler
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

HUNG = 4
"""Exit status. It counts as a crash: a step that hangs again and again ends the run."""
LEAST_SECONDS = 120.0
TIMES = 20
"""Times the slowest of the newest steps."""
WINDOW_STEPS = 20
FIRST_SECONDS = 3600.0
"""For the first steps, which compile and fill caches."""
TICK_SECONDS = 0.5


class Watchdog:
    """Counts the seconds of the step under way, in a thread, while it watches; `step_done` begins the next one."""

    def __init__(self, step: int):
        self._step = step
        self._seconds: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._spent = 0.0
        self._rests = False
        self._ended = threading.Event()

    @property
    def limit_seconds(self) -> float:
        return max(LEAST_SECONDS, TIMES * max(self._seconds)) if len(self._seconds) > 1 else FIRST_SECONDS

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._spent = 0.0
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            self._ended.set()

    @contextmanager
    def step_done(self) -> Iterator[None]:
        """What is done within, at a step's boundary, is not counted: it writes, and measures, as long as it takes."""
        self._seconds.append(self._spent)
        self._rests = True
        try:
            yield
        finally:
            self._step += 1
            self._spent, self._rests = 0.0, False

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            self._spent += 0.0 if self._rests else min(now - last, 2 * TICK_SECONDS)
            last = now
            if self._spent > self.limit_seconds:
                self._bite()

    def _bite(self) -> None:
        faulthandler.dump_traceback(sys.stderr)
        usual = max(self._seconds, default=0.0)
        told = f"Step {self._step + 1} hangs: {self._spent:.0f} s, where others took up to {usual:.1f} s"
        print(told, file=sys.stderr, flush=True)
        os._exit(HUNG)
