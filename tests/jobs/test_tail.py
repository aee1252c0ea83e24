"""A worker's events become rows, each once, in OpenAI's words."""

import pytest
from orders import tuning_job
from sqlalchemy import func, select

from tunesmith.db import checkpoints, events, metrics, models, tables
from tunesmith.db.jobs import get
from tunesmith.db.migrate import open_database
from tunesmith.errors import Fenced
from tunesmith.jobs.names import fine_tuned_id
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.tail import Tail
from tunesmith.runfolder import EventLog, RunFolder


@pytest.fixture
def queue(where):
    database = open_database(*where)
    made = Queue(database, lease_seconds=30)
    made.submit(tuning_job("job"))
    made.accept(made.claim_unchecked("a"), num_rows=1)
    yield made
    database.close()


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def steps(log, numbers, total=10):
    for step in numbers:
        log.emit("step", step=step, total_steps=total, loss=1 / step, learning_rate=0.1, token_accuracy=0.5, eta_seconds=9.0)


def count(queue, table):
    with queue.database.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def said(queue):
    with queue.database.read() as connection:
        return [event for event in events.list_since(connection, "job") if event.attempt > 0]


def test_each_event_is_one_row_however_often_it_is_read(queue, folder):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    log.emit("phase", phase="training", message="Training")
    steps(log, [1, 2])
    for _ in range(3):
        Tail(queue.database, folder, job, 1).read()
    steps(log, [3])
    Tail(queue.database, folder, job, 1).read()
    log.close()
    assert [(event.attempt, event.seq) for event in said(queue)] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert count(queue, tables.metrics) == 3


def test_rows_and_offset_are_written_together_or_not_at_all(queue, folder, monkeypatch):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    steps(log, [1, 2])
    log.close()
    monkeypatch.setattr("tunesmith.db.attempts.set_offset", _cut)
    with pytest.raises(RuntimeError, match="cut"):
        Tail(queue.database, folder, job, 1).read()
    monkeypatch.undo()
    assert said(queue) == []
    Tail(queue.database, folder, job, 1).read()
    assert len(said(queue)) == 2


def _cut(*args):
    raise RuntimeError("cut")


def test_a_torn_last_line_waits_until_it_is_whole(queue, folder):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    steps(log, [1, 2])
    log.close()
    whole = folder.events_file(1).read_bytes()
    folder.events_file(1).write_bytes(whole[:-20])
    tail = Tail(queue.database, folder, job, 1)
    assert [event["step"] for event in tail.read()] == [1]
    assert tail.read() == []
    folder.events_file(1).write_bytes(whole)
    assert [event["step"] for event in tail.read()] == [2]
    assert len(said(queue)) == 2


def test_two_kills_leave_one_current_row_per_step(queue, folder):
    job = queue.claim("a")
    for attempt, (resumed, done) in enumerate([(None, range(1, 8)), (5, range(6, 10)), (5, range(6, 11))], start=1):
        log = EventLog(folder.events_file(attempt))
        if resumed:
            log.emit("resumed", step=resumed)
        steps(log, done)
        log.close()
        Tail(queue.database, folder, job, attempt).read()
        if attempt < 3:
            job = queue.retry(job, "killed by SIGKILL")
    with queue.database.read() as connection:
        current = metrics.list_current(connection, "job")
    assert [(row.step, row.attempt) for row in current] == [(s, 1) for s in range(1, 6)] + [(s, 3) for s in range(6, 11)]
    assert count(queue, tables.metrics) == 7 + 4 + 5


def test_events_speak_openais_words(queue, folder):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    log.emit("step", step=131, total_steps=303, loss=0.254)
    log.emit("eval", step=131, total_steps=303, loss=0.5, token_accuracy=0.9)
    log.emit("checkpoint", step=88, path="checkpoints/step-88")
    log.emit("warning", message="Slow.")
    log.emit("error", code="out_of_memory", message="The machine has too little memory.")
    log.close()
    Tail(queue.database, folder, job, 1).read()
    assert [(event.message, event.level) for event in said(queue)] == [
        ("Step 131/303: training loss=0.25", "info"),
        ("Step 131/303: training loss=0.25, validation loss=0.50, full validation loss=0.50", "info"),
        ("State saved at step 88, to resume from", "info"),
        ("Slow.", "warn"),
        ("The machine has too little memory.", "error"),
    ]
    with queue.database.read() as connection:
        assert metrics.list_current(connection, "job")[0].valid_loss == 0.5


def test_an_epochs_adapter_answers_by_a_name_of_its_own_and_the_newest_three_are_kept(queue, folder):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    for step in (10, 20, 30, 40):
        log.emit("adapter", step=step, path=f"artifacts/step-{step}", content_hash=f"hash-{step}")
    log.emit("adapter", step=40, path="artifacts/step-40", content_hash="again")
    log.close()
    Tail(queue.database, folder, job, 1).read()
    name = fine_tuned_id("tunesmith/tiny", None, "job")
    with queue.database.read() as connection:
        found, has_more = checkpoints.list_page(connection, "job", after=None, limit=10)
        answering = models.get(connection, f"{name}:ckpt-step-30", job.project)
        assert models.find(connection, f"{name}:ckpt-step-10", job.project) is None
        assert models.find(connection, f"{name}:ckpt-step-30", "proj_other") is None
    assert [(row.step, row.content_hash) for row in found] == [(40, "again"), (30, "hash-30"), (20, "hash-20")]
    assert (answering.path, answering.content_hash, has_more) == ("runs/job/artifacts/step-30", "hash-30", False)
    assert said(queue)[0].message == "Checkpoint created at step 10"


def test_the_numbers_that_the_run_chose_are_known_as_soon_as_it_trains(queue, folder):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    log.emit("phase", phase="training", message="Training, 4 steps", hyperparameters={"epochs": 3.0, "batch_size": 8})
    log.close()
    Tail(queue.database, folder, job, 1).read()
    with queue.database.read() as connection:
        assert get(connection, "job").result == {"hyperparameters": {"epochs": 3.0, "batch_size": 8}}


def test_a_loss_that_is_no_number_is_stored_as_none(queue, folder):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    log.emit("step", step=1, total_steps=2, loss=float("nan"))
    log.close()
    Tail(queue.database, folder, job, 1).read()
    assert said(queue)[0].payload["loss"] is None
    assert said(queue)[0].message == "Step 1/2: training loss=none"


def test_a_supervisor_that_lost_its_lease_stores_nothing(queue, folder):
    first = queue.claim("a")
    log = EventLog(folder.events_file(1))
    steps(log, [1])
    log.close()
    queue.retry(first, "lost")
    with pytest.raises(Fenced):
        Tail(queue.database, folder, first, 1).read()
    assert said(queue) == []


def test_the_finish_is_estimated_from_the_newest_step(queue, folder):
    job = queue.claim("a")
    log = EventLog(folder.events_file(1))
    steps(log, [1])
    log.close()
    Tail(queue.database, folder, job, 1).read()
    with queue.database.read() as connection:
        assert get(connection, "job").estimated_finish == int(said(queue)[0].time + 9)
