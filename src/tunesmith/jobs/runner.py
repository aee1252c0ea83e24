"""The supervisor: takes jobs from the queue, one at a time, and sees each through to its end with child processes.

Start is recovery: what an earlier server left behind is claimed like any other job once its lease is over. Two threads: one
validates the files of new jobs, one runs a worker, tails its events into rows and keeps the lease.
"""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from tunesmith.db import files
from tunesmith.db.jobs import Job
from tunesmith.db.models import FineTuned
from tunesmith.errors import Fenced, InvalidRequest, NotFound, StorageFull, TunesmithError
from tunesmith.jobs import child, prepare, result_file
from tunesmith.jobs.names import fine_tuned_id
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.tail import Tail
from tunesmith.models.artifact import read_adapter
from tunesmith.recipes.run import parse
from tunesmith.runfolder import Event, RunFolder
from tunesmith.settings import Settings
from tunesmith.store import BlobStore
from tunesmith.types import Wanted, unix_now

TICK_SECONDS = 0.1
"""How often a running worker's events and the job's wanted state are looked at."""
IDLE_SECONDS = 0.5
"""How often the queue is looked at when nothing woke the supervisor (a job may be ordered from the command line)."""
CANCEL_SECONDS = 10.0
"""How long a worker has to obey a cancellation before it is killed."""
DRAIN_SECONDS = 12.0
"""How long a worker has to write a checkpoint when the server stops."""

log = structlog.get_logger("tunesmith.supervisor")


class Supervisor:
    """Owns the two threads; `start` returns at once, `stop` when the worker is gone."""

    def __init__(
        self, settings: Settings, queue: Queue, store: BlobStore, on_training: Callable[[bool], None] = lambda is_training: None
    ):
        """`on_training` is called in a thread of ours, with True when a worker starts and with False when it has ended."""
        self._settings = settings
        self._dirs = settings.dirs
        self._queue = queue
        self._store = store
        self._on_training = on_training
        self._owner = child.identity()
        self._stopping = threading.Event()
        self._wakes = (threading.Event(), threading.Event())
        loops = ((self._validate_one, self._wakes[0], "validate"), (self._run_one, self._wakes[1], "run"))
        self._threads = [threading.Thread(target=self._loop, args=loop, name=f"supervisor-{loop[2]}") for loop in loops]

    def start(self) -> None:
        freed = self._queue.expire(child.is_alive)
        if freed:
            log.info("jobs of a lost server are taken over", num_jobs=freed)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets the worker write a checkpoint, ends it, and gives its job back to the queue."""
        self._stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join()

    def wake(self) -> None:
        """There may be something to do."""
        for wake in self._wakes:
            wake.set()

    def _loop(self, work: Callable[[], bool], wake: threading.Event, name: str) -> None:
        while not self._stopping.is_set():
            wake.clear()
            try:
                worked = work()
            except Fenced as error:
                log.warning("a job went to another supervisor", reason=str(error))
                continue
            except Exception:  # a thread's outermost boundary: one bad job must not stop the others
                log.exception("the supervisor met an unexpected error", loop=name)
                worked = False
            if worked:
                self.wake()
            else:
                wake.wait(IDLE_SECONDS)

    # -- validation ---------------------------------------------------------------------------------------------------

    def _validate_one(self) -> bool:
        job = self._queue.claim_unchecked(self._owner)
        if job is None:
            return False
        try:
            recipe = parse(job.recipe)
            folder = RunFolder(self._dirs.run(job.id))
            sources = self._sources(job)
            prepare.lay_out(folder, recipe, sources)
            self._queue.accept(job, num_rows=prepare.check(folder, recipe, sources))
        except (InvalidRequest, NotFound, StorageFull) as error:
            self._queue.fail(job, _error(error))
        return True

    def _sources(self, job: Job) -> list[prepare.Source]:
        data = job.recipe["data"]
        sources = []
        for param, file_id, key in (
            ("training_file", job.order["training_file"], "train"),
            ("validation_file", job.order.get("validation_file"), "validation"),
        ):
            if file_id is not None:
                with self._queue.database.read() as connection:
                    file = files.get(connection, file_id)
                sources.append(prepare.Source(param, data[key], file, self._store.path(file.sha256)))
        return sources

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_one(self) -> bool:
        job = self._queue.claim(self._owner)
        if job is None:
            return False
        folder = RunFolder(self._dirs.run(job.id))
        for attempt in folder.attempts():
            Tail(self._queue.database, folder, job, attempt).read()
        held: Job | None = job
        while held is not None:
            held = self._attempt(folder, held)
        return True

    def _attempt(self, folder: RunFolder, job: Job) -> Job | None:
        """One worker from start to end. The job with its next attempt, or None when there is no next one here."""
        if folder.result() is not None:
            self._finish(folder, job)
            return None
        output = folder.attempt(job.attempt) / "worker.log"
        try:
            folder.order(job.wanted, job.attempt)
            process = child.start_worker(folder.root, job.attempt, self._dirs.models, output)
        except (OSError, StorageFull) as error:
            self._queue.fail(job, {"code": "worker_failed", "message": f"The worker could not start: {error}", "param": None})
            return None
        log.info("worker started", job=job.id, attempt=job.attempt, pid=process.pid)
        self._on_training(True)
        try:
            last = self._watch(process, folder, job)
        finally:
            child.end(process)
            self._on_training(False)
        log.info("worker ended", job=job.id, attempt=job.attempt, status=process.returncode)
        return self._conclude(folder, job, last, child.describe(process.returncode, output))

    def _watch(self, process: subprocess.Popen[bytes], folder: RunFolder, job: Job) -> Event | None:
        """Until the worker ends: its events to rows, its orders to control.json. The event that says how it ended, if any.

        Raises Fenced when the lease is lost.
        """
        tail = Tail(self._queue.database, folder, job, job.attempt)
        ordered, deadline, beat = job.wanted, float("inf"), time.monotonic()
        last: Event | None = None
        while True:
            ended = process.poll() is not None
            for event in tail.read():
                last = event if event["type"] in {"error", "paused", "cancelled", "result"} else last
            now = time.monotonic()
            if ended or now > deadline:
                return last
            wanted = self._wanted(self._queue.look(job))
            if wanted != ordered:
                folder.order(wanted, job.attempt)
                ordered, deadline = wanted, now + self._patience(wanted)
            if now - beat > self._queue.lease_seconds / 3:
                self._queue.heartbeat(job)
                beat = now
            time.sleep(TICK_SECONDS)

    def _wanted(self, job: Job) -> Wanted:
        if job.status == "cancelled":
            return "cancel"
        return "pause" if self._stopping.is_set() else job.wanted

    def _patience(self, wanted: Wanted) -> float:
        if wanted == "cancel":
            return CANCEL_SECONDS
        return DRAIN_SECONDS if self._stopping.is_set() else float("inf")

    def _conclude(self, folder: RunFolder, job: Job, last: Event | None, reason: str) -> Job | None:
        """What follows from how the worker ended."""
        now = self._queue.look(job)
        if now.status == "cancelled":
            self._queue.let_go(job)
        elif folder.result() is not None:
            self._finish(folder, job)
        elif last is not None and last["type"] == "error":
            self._queue.fail(job, {"code": last["code"], "message": last["message"], "param": last.get("param")})
        elif self._stopping.is_set():
            self._queue.release(job)
        elif last is not None and last["type"] == "paused":
            self._queue.paused(job)
        else:
            self._stopping.wait(min(0.5 * now.crashes, 5.0))
            return self._queue.retry(job, reason)
        return None

    def _finish(self, folder: RunFolder, job: Job) -> None:
        """The run's adapter becomes a model. Nothing is published when the job was cancelled or taken over meanwhile."""
        result = folder.result() or {}
        try:
            adapter = read_adapter(folder.root / result["adapter"]["path"])
        except (NotFound, InvalidRequest) as error:
            self._queue.fail(job, {"code": "adapter_invalid", "message": str(error), "param": None})
            return
        model = FineTuned(
            id=fine_tuned_id(job.order["model"], job.order["suffix"], job.id),
            base=job.order["model"],
            quantization=adapter.quantization,
            path=str(Path(adapter.path).relative_to(self._dirs.root)),
            content_hash=adapter.content_hash,
            job_id=job.id,
            created=unix_now(),
            project=job.project,
        )
        self._queue.succeed(job, result, model, result_file.make(self._queue.database, self._store, job))


def _error(error: TunesmithError) -> dict[str, Any]:
    return {"code": error.code, "message": str(error), "param": error.param}
