"""The supervisor: takes jobs from the queue, and sees each through to its end with child processes. One lane for each kind.

Start is recovery: what an earlier server left behind is claimed like any other job once its lease is over. A lane has one thread
that checks new jobs, and one for each job that may run at once, which starts a worker, tails its events into rows and keeps the
lease. What is checked, and what becomes of a result, stands in checks.py and outcomes.py.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from tunesmith.db.jobs import Job
from tunesmith.errors import InvalidRequest, NotFound, StorageFull, TrainingFailed, TunesmithError
from tunesmith.jobs import child
from tunesmith.jobs.checks import CHECKS, Place
from tunesmith.jobs.keys import SCOPES, passing_key
from tunesmith.jobs.loops import Loops
from tunesmith.jobs.outcomes import OUTCOMES
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.tail import Tail
from tunesmith.runfolder import Event, RunFolder
from tunesmith.settings import Settings
from tunesmith.store import BlobStore
from tunesmith.types import JobKind, Wanted

LOOK_SECONDS = 2.0
"""How often a lane with nothing to do looks for orders that came from elsewhere; the API's wake it at once."""
TICK_SECONDS = 0.1
"""How often a running worker's events and the job's wanted state are looked at."""
CANCEL_SECONDS = 10.0
"""How long a worker has to obey a cancellation before it is killed."""
FINISH_SECONDS = 600.0
"""The same where a cancelled job finishes what is under way."""
DRAIN_SECONDS = 12.0
"""How long a worker has to write a checkpoint when the server stops."""
INTERRUPTED_SECONDS = 1.0
"""Before the next attempt: a machine that is being taken away would start one after another."""
LAST_WORDS = frozenset({"error", "paused", "cancelled", "result"})

log = structlog.get_logger("tunesmith.supervisor")


class Supervisor:
    """Owns the threads; `start` returns at once, `stop` when the workers are gone."""

    def __init__(
        self, settings: Settings, queue: Queue, store: BlobStore, on_training: Callable[[bool], None] = lambda is_training: None
    ):
        """`on_training` is called in a thread of ours, with True when a training starts and with False when it has ended."""
        self._settings = settings
        self._queue = queue
        self._place = Place(settings.dirs, queue.database, store, settings.min_examples)
        self._on_training = on_training
        self._owner = child.identity()
        lanes: dict[JobKind, int] = {"fine_tuning": 1, "batch": settings.max_batches, "eval_run": settings.max_eval_runs}
        works: list[tuple[str, Callable[[], bool]]] = []
        for kind, num_at_once in lanes.items():
            works.append((f"check-{kind}", partial(self._check_one, kind)))
            works += [(f"run-{kind}-{number}", partial(self._run_one, kind)) for number in range(num_at_once)]
        self._loops = Loops(works, LOOK_SECONDS)
        self._stopping = self._loops.stopping
        self.wake = self._loops.wake

    def start(self) -> None:
        freed = self._queue.expire(child.is_alive)
        if freed:
            log.info("jobs of a lost server are taken over", num_jobs=freed)
        self._loops.start()

    def stop(self) -> None:
        """Lets the workers write a checkpoint, ends them, and gives their jobs back to the queue."""
        self._loops.stop()

    # -- checking -----------------------------------------------------------------------------------------------------

    def _check_one(self, kind: JobKind) -> bool:
        job = self._queue.claim_unchecked(self._owner, kind)
        if job is None:
            return False
        try:
            checked = CHECKS[kind](job, self._place)
        except (InvalidRequest, NotFound, StorageFull) as error:
            self._fail(job, error)
            return True
        if checked.error is None:
            self._queue.accept(job, num_rows=checked.num_rows, facts=checked.facts)
        else:
            self._queue.fail(job, checked.error)
        return True

    def _fail(self, job: Job, error: TunesmithError) -> None:
        self._queue.fail(job, {"code": error.code, "message": str(error), "param": error.param})

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_one(self, kind: JobKind) -> bool:
        job = self._queue.claim(self._owner, kind)
        if job is None:
            return False
        folder = self._place.folder(job)
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
        with self._environment(job) as environment:
            try:
                folder.order(job.wanted, job.attempt)
                process = child.start_worker(folder.root, job.attempt, self._settings.dirs.models, output, environment)
            except (OSError, StorageFull) as error:
                message = f"The worker could not start: {error}"
                self._queue.fail(job, {"code": "worker_failed", "message": message, "param": None})
                return None
            log.info("worker started", job=job.id, attempt=job.attempt, pid=process.pid)
            try:
                last = self._watch(process, folder, job)
            finally:
                child.end(process)
        log.info("worker ended", job=job.id, attempt=job.attempt, status=process.returncode)
        return self._conclude(folder, job, last, process.returncode)

    @contextmanager
    def _environment(self, job: Job) -> Iterator[dict[str, str]]:
        """What a worker of this kind is told beside its folder. A training makes the engine step back while it lasts."""
        if job.kind in SCOPES:
            with passing_key(self._queue.database, job) as key:
                yield {"TUNESMITH_BASE_URL": self._settings.own_url, "TUNESMITH_JOB_KEY": key}
            return
        self._on_training(True)
        try:
            yield {}
        finally:
            self._on_training(False)

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
                last = event if event["type"] in LAST_WORDS else last
            now = time.monotonic()
            if ended or now > deadline:
                return last
            found = self._queue.look(job)
            wanted = self._wanted(found)
            if wanted != ordered:
                folder.order(wanted, job.attempt)
                ordered, deadline = wanted, now + self._patience(wanted, found)
            if now - beat > self._queue.lease_seconds / 3:
                self._queue.heartbeat(job)
                beat = now
            time.sleep(TICK_SECONDS)

    def _wanted(self, job: Job) -> Wanted:
        if job.status == "cancelled":
            return "cancel"
        return "pause" if self._stopping.is_set() else job.wanted

    def _patience(self, wanted: Wanted, job: Job) -> float:
        """Seconds that a worker has to obey."""
        if wanted == "cancel":
            return CANCEL_SECONDS if job.status == "cancelled" else FINISH_SECONDS
        return DRAIN_SECONDS if self._stopping.is_set() else float("inf")

    def _conclude(self, folder: RunFolder, job: Job, last: Event | None, returncode: int) -> Job | None:
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
        elif child.was_interrupted(returncode) and now.wanted != "cancel":
            self._stopping.wait(INTERRUPTED_SECONDS)
            self._queue.interrupted(job)
        else:
            self._stopping.wait(min(0.5 * now.crashes, 5.0))
            reason = child.describe(returncode, folder.attempt(job.attempt) / "worker.log")
            return self._queue.retry(job, reason)
        return None

    def _finish(self, folder: RunFolder, job: Job) -> None:
        """What the run made is registered. Nothing is published when the job was cancelled or taken over meanwhile."""
        try:
            outcome = OUTCOMES[job.kind](job, self._place, folder.result() or {})
        except (TrainingFailed, StorageFull) as error:
            self._fail(job, error)
            return
        self._queue.finish(job, outcome)
        for path in outcome.leftovers:
            path.unlink(missing_ok=True)
