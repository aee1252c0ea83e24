"""A supervisor on a data directory of its own, with a training file that suffices for some dozens of steps."""

import json
import time
from pathlib import Path

import pytest
from orders import tuning_job

from tunesmith.db import events, files, jobs
from tunesmith.db.files import File
from tunesmith.db.jobs import Job
from tunesmith.db.migrate import open_database
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.runner import Supervisor
from tunesmith.paths import SUPPORT_DESK
from tunesmith.recipes.run import merge, parse
from tunesmith.settings import Settings
from tunesmith.store import open_store
from tunesmith.types import new_id

RECIPE = {
    "data": {"train": "training.jsonl"},
    "method": {"epochs": 2, "batch_size": 4, "max_length": 128},
    "adapter": {"rank": 2},
    "checkpoints": {"every_steps": 2},
    "threads": 1,
}
"""20 rows, 10 steps, 5 checkpoints."""
ROWS = "".join(f"{line}\n" for line in (SUPPORT_DESK / "train.jsonl").read_text().splitlines()[:20])


class Bench:
    """Orders jobs and waits for what becomes of them; `start` and `stop` are a server's start and end."""

    def __init__(self, root: Path, lease_seconds: float = 30.0, **where: str):
        self.settings = Settings(data_dir=root, lease_seconds=lease_seconds, **where)
        self.database = open_database(self.settings.dirs.make().database, self.settings.database_url)
        self.store = open_store(self.settings.dirs.blobs, self.settings.store)
        self.queue = Queue(self.database, lease_seconds=lease_seconds)
        self.supervisor = self.new_supervisor()

    def new_supervisor(self):
        return Supervisor(self.settings, self.queue, self.store)

    def upload(self, text: str = ROWS, name: str = "rows.jsonl") -> str:
        blob = self.store.put([text.encode()])
        file = File(new_id("file"), name, "fine-tune", blob.num_bytes, blob.sha256, 1)
        with self.database.write() as connection:
            files.add(connection, file)
        return file.id

    def order(self, file_id: str | None = None, recipe: dict | None = None, **fields) -> str:
        whole = parse(merge(RECIPE, recipe or {})).model_dump(mode="json")
        order = {"training_file": file_id or self.upload()} | fields.pop("order", {})
        job = tuning_job(new_id("ftjob"), base=whole["base"], recipe=whole, order=order, **fields)
        self.queue.submit(job)
        self.supervisor.wake()
        return job.id

    def job(self, job_id: str) -> Job:
        with self.database.read() as connection:
            return jobs.get(connection, job_id)

    def events(self, job_id: str, type: str | None = None):
        with self.database.read() as connection:
            return [event for event in events.list_since(connection, job_id) if type in {None, event.type}]

    def wait(self, condition):
        """Until `condition()` is true; the test's own time limit ends it otherwise."""
        while not (found := condition()):
            time.sleep(0.05)
        return found

    def wait_for_step(self, job_id: str, attempt: int, step: int) -> None:
        def reached():
            job = self.job(job_id)
            assert not job.is_finished, (job.status, job.error, self.log(job_id))
            return any(e.attempt == attempt and e.payload["step"] >= step for e in self.events(job_id, "step"))

        self.wait(reached)

    def wait_for(self, job_id: str, *statuses: str) -> Job:
        def reached():
            job = self.job(job_id)
            ended = job.is_finished and job.status not in statuses
            assert not ended, (job.status, job.error, self.log(job_id))
            return job if job.status in statuses else None

        return self.wait(reached)

    def log(self, job_id: str) -> str:
        said = [event.message for event in self.events(job_id)][-10:]
        printed = [path.read_text()[-2000:] for path in self.folder(job_id).glob("attempts/*/worker.log")]
        return "\n".join([*said, *printed])

    def folder(self, job_id: str) -> Path:
        return self.settings.dirs.run(job_id)

    def worker_pid(self, job_id: str, attempt: int) -> int | None:
        """The process that runs the attempt; found by its command line, as an operator would."""
        wanted = [str(self.folder(job_id)), "--attempt", str(attempt)]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode().split("\0")
                except OSError:
                    continue
                if any(words[index : index + 3] == wanted for index in range(len(words))):
                    return int(entry.name)
        return None


@pytest.fixture
def bench(tmp_path):
    yield from _started(Bench(tmp_path / "data"))


@pytest.fixture(params=["sqlite-disk", "postgresql-s3"])
def bench_everywhere(request, tmp_path):
    where = {}
    if request.param == "postgresql-s3":
        where = {"database_url": request.getfixturevalue("postgresql").new_url(), "store": request.getfixturevalue("s3")}
    yield from _started(Bench(tmp_path / "data", **where))


def _started(made):
    made.supervisor.start()
    yield made
    made.supervisor.stop()
    made.database.close()


@pytest.fixture
def bad_rows():
    good = ROWS.splitlines()
    return "\n".join([*good[:5], json.dumps({"messages": [{"role": "user"}]}), *good[5:]])
