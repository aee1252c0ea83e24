"""The queue's promises: one owner at a time, a lost lease changes nothing, a crash is tried again, a cancellation is final."""

import threading

import pytest
from orders import tuning_job
from sqlalchemy import text

from tunesmith.db import events, models
from tunesmith.db.files import File
from tunesmith.db.jobs import MAX_ATTEMPTS, get
from tunesmith.db.migrate import open_database
from tunesmith.db.models import FineTuned
from tunesmith.errors import Fenced, InvalidRequest
from tunesmith.jobs.outcomes import Outcome
from tunesmith.jobs.queue import Queue


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(where, clock):
    database = open_database(*where)
    yield Queue(database, lease_seconds=30, clock=clock)
    database.close()


def submit(queue, *names, ready=True):
    for name in names:
        queue.submit(tuning_job(name))
        if ready:
            queue.accept(queue.claim_unchecked("checker"), num_rows=1)


def job_of(queue, name):
    with queue.database.read() as connection:
        return get(connection, name)


def log_of(queue, name):
    with queue.database.read() as connection:
        return [event.message for event in events.list_since(connection, name)]


def made_by(job, **result):
    """A model, and the file of its numbers."""
    model = FineTuned(f"ft:{job.id}", job.order["model"], "none", "runs/x", "hash", job.id, 1)
    numbers = File(f"file-{job.id}", "step_metrics.csv", "fine-tune-results", 1, "00", 1)
    names = {"fine_tuned_model": model.id, "result_files": [numbers.id]}
    said = [f"New fine-tuned model created: {model.id}", "The job has successfully completed"]
    return Outcome(result | names, models=[model], files=[numbers], said=said)


def test_jobs_are_claimed_oldest_first_and_each_by_one_of_many(queue):
    names = [f"job-{index}" for index in range(20)]
    submit(queue, *names)
    assert queue.claim("first").id == "job-0"
    claimed: list[str] = []

    def take(owner):
        while job := queue.claim(owner):
            claimed.append(job.id)

    threads = [threading.Thread(target=take, args=(f"claimer-{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(names[1:])


def test_only_validated_jobs_are_run_and_each_is_validated_by_one(queue):
    submit(queue, "job", ready=False)
    assert queue.claim("runner") is None
    first = queue.claim_unchecked("a")
    assert first.id == "job"
    assert queue.claim_unchecked("b") is None
    assert queue.accept(first, num_rows=3).status == "queued"
    assert queue.claim("runner").status == "running"


def test_a_lease_that_runs_out_goes_to_another_and_the_first_is_fenced(queue, clock):
    submit(queue, "job")
    first = queue.claim("a")
    clock.now += 29
    queue.heartbeat(first)
    clock.now += 29
    assert queue.claim("b") is None
    clock.now += 2
    second = queue.claim("b")
    assert (second.id, second.attempt, second.crashes) == ("job", 2, 1)
    for change in (queue.heartbeat, queue.look, queue.release, queue.paused):
        with pytest.raises(Fenced):
            change(first)
    with pytest.raises(Fenced):
        queue.finish(first, made_by(first))
    with pytest.raises(Fenced):
        queue.fail(first, {"code": "x", "message": "x", "param": None})
    assert queue.finish(second, made_by(second)).status == "succeeded"


def test_an_expired_lease_goes_before_the_waiting_jobs(queue, clock):
    submit(queue, "old", "new")
    queue.claim("a")
    clock.now += 31
    assert queue.claim("b").id == "old"
    assert queue.claim("b").id == "new"


def test_a_crash_is_tried_again_with_a_new_attempt_until_there_were_too_many(queue):
    submit(queue, "job")
    job = queue.claim("a")
    for attempt in range(2, MAX_ATTEMPTS + 1):
        old, job = job, queue.retry(job, "killed by SIGKILL")
        assert job.attempt == attempt
        with pytest.raises(Fenced):
            queue.heartbeat(old)
    assert queue.retry(job, "killed by SIGKILL") is None
    ended = job_of(queue, "job")
    assert (ended.status, ended.error["code"], ended.lease_token) == ("failed", "worker_crashed", None)
    assert "SIGKILL" in ended.error["message"]


def test_a_job_that_takes_its_supervisor_with_it_ends_too(queue, clock):
    submit(queue, "poison", "healthy")
    for _ in range(MAX_ATTEMPTS):
        assert queue.claim("a").id == "poison"
        clock.now += 31
    assert queue.claim("a").id == "healthy"
    assert job_of(queue, "poison").error["code"] == "worker_crashed"


def test_a_release_is_no_crash(queue):
    submit(queue, "job")
    for attempt in range(1, MAX_ATTEMPTS + 3):
        job = queue.claim("a")
        assert (job.attempt, job.crashes) == (attempt, 0)
        assert queue.release(job).status == "queued"


def test_cancelling_is_final_from_every_open_state_and_publishes_nothing(queue):
    submit(queue, "unchecked", ready=False)
    assert queue.cancel("unchecked").status == "cancelled"
    submit(queue, "waiting", "paused", "running")
    assert queue.cancel("waiting").status == "cancelled"
    queue.pause("paused")
    assert queue.cancel("paused").status == "cancelled"
    job = queue.claim("a")
    assert job.id == "running"
    assert queue.cancel("running").status == "cancelled"
    assert queue.look(job).wanted == "cancel"
    with pytest.raises(Fenced):
        queue.finish(job, made_by(job))
    with queue.database.read() as connection:
        assert models.list_all(connection) == []
    queue.let_go(job)
    assert queue.claim("a") is None
    for change in (queue.cancel, queue.pause, queue.resume):
        with pytest.raises(InvalidRequest, match="already cancelled"):
            change("running")


def test_a_pause_waits_for_the_worker_and_a_resume_goes_on(queue):
    submit(queue, "job")
    job = queue.claim("a")
    assert queue.pause("job").status == "running"
    assert queue.look(job).wanted == "pause"
    assert queue.paused(job).status == "paused"
    assert queue.claim("a") is None
    assert queue.resume("job").status == "queued"
    again = queue.claim("a")
    assert (again.attempt, again.crashes, again.wanted) == (2, 0, "run")


def test_a_resume_that_overtakes_the_pause_requeues_the_job(queue):
    submit(queue, "job")
    job = queue.claim("a")
    queue.pause("job")
    queue.resume("job")
    assert queue.paused(job).status == "queued"


def test_a_pause_before_validation_is_kept(queue):
    submit(queue, "job", ready=False)
    queue.pause("job")
    assert queue.accept(queue.claim_unchecked("a"), num_rows=1).status == "paused"


def test_success_tells_the_story_that_openai_tells(queue):
    submit(queue, "job")
    job = queue.claim("a")
    queue.finish(job, made_by(job, trained_tokens=5))
    assert log_of(queue, "job") == [
        "Created fine-tuning job: job",
        "Validating training file: file-1",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "New fine-tuned model created: ft:job",
        "The job has successfully completed",
    ]


def test_the_leases_of_a_dead_server_end_at_once(queue):
    submit(queue, "mine", "dead")
    alive, dead = queue.claim("alive"), queue.claim("dead")
    assert queue.expire(lambda owner: owner == "alive") == 1
    assert queue.claim("new").id == dead.id
    assert queue.heartbeat(alive).lease_owner == "alive"


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_claiming_uses_an_index_and_sorts_no_table(queue):
    batches = "select num from jobs where kind = 'batch'"
    plans = {
        f"{batches} and status = 'queued' order by num limit 1": "jobs_by_status",
        f"{batches} and status = 'running' and lease_until < 5 order by lease_until limit 1": "jobs_by_lease",
    }
    with queue.database.read() as connection:
        for query, index in plans.items():
            plan = " ".join(row[3] for row in connection.execute(text(f"explain query plan {query}")))
            assert index in plan
            assert "TEMP B-TREE" not in plan


def batch(queue, name):
    queue.submit(tuning_job(name, kind="batch", order={"input_file_id": "file-1"}))
    queue.accept(queue.claim_unchecked("a", "batch"), num_rows=2, facts={"model": "m"})


def test_a_batch_that_waits_is_cancelled_at_once_and_one_that_has_begun_keeps_what_it_has(queue, clock):
    batch(queue, "first")
    batch(queue, "second")
    assert queue.cancel("second").status == "cancelled"
    job = queue.claim("a", "batch")
    assert (job.id, job.result) == ("first", {"model": "m"})
    asked = queue.cancel("first")
    assert (asked.status, asked.wanted, asked.result["cancelling_at"]) == ("running", "cancel", int(clock.now))
    assert queue.cancel("first") == asked, "asked twice is asked once"
    assert queue.look(job).wanted == "cancel"
    ended = queue.finish(job, Outcome({"outcome": "cancelled"}, "cancelled", said=["Batch cancelled"]))
    assert (ended.status, ended.finished, ended.lease_token) == ("cancelled", int(clock.now), None)
    assert ended.result == {"model": "m", "cancelling_at": int(clock.now), "outcome": "cancelled"}
    assert log_of(queue, "first") == [
        "Created batch: first",
        "Validating input file: file-1",
        "Files validated, moving job to queued state",
        "Batch started",
        "Batch is being cancelled: requests under way are finished",
        "Batch cancelled",
    ]


def test_a_cancelled_batch_whose_server_stops_is_cancelled_by_the_next_one(queue):
    batch(queue, "job")
    queue.release(queue.claim("a", "batch"))
    queue.cancel("job")
    again = queue.claim("b", "batch")
    assert (again.status, again.wanted, again.attempt) == ("running", "cancel", 2)


def test_each_kind_has_a_lane_of_its_own(queue):
    submit(queue, "tuning")
    batch(queue, "batch")
    assert queue.claim("a", "eval_run") is None
    assert queue.claim("a", "batch").id == "batch"
    assert queue.claim("a").id == "tuning"
    assert queue.claim("a", "batch") is None
