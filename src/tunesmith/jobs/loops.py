"""Threads that do one piece of work after the other until they are told to stop. Knows nothing of the work."""

import threading
from collections.abc import Callable

import structlog

from tunesmith.errors import Fenced

IDLE_SECONDS = 0.5
"""How often is looked for work when nothing woke the threads, unless told otherwise."""

log = structlog.get_logger("tunesmith.supervisor")


class Loops:
    """One thread for each `(name, work)`. `work` does one piece and says whether there was any: then it is called again."""

    def __init__(self, works: list[tuple[str, Callable[[], bool]]], idle_seconds: float = IDLE_SECONDS):
        self._idle_seconds = idle_seconds
        self.stopping = threading.Event()
        self._wakes: list[threading.Event] = []
        self._threads: list[threading.Thread] = []
        for name, work in works:
            wake = threading.Event()
            self._wakes.append(wake)
            self._threads.append(threading.Thread(target=self._loop, args=(work, wake, name), name=name))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when every thread has ended what it does. One that never began is none."""
        self.stopping.set()
        self.wake()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def wake(self) -> None:
        """There may be something to do."""
        for wake in self._wakes:
            wake.set()

    def _loop(self, work: Callable[[], bool], wake: threading.Event, name: str) -> None:
        while not self.stopping.is_set():
            wake.clear()
            try:
                worked = work()
            except Fenced as error:
                log.warning("a job went to another supervisor", reason=str(error))
                continue
            except Exception:  # a thread's outermost boundary: one bad piece must not stop the others
                log.exception("a thread met an unexpected error", loop=name)
                worked = False
            if worked:
                self.wake()
            else:
                wake.wait(self._idle_seconds)
