"""The supervisor sees each job to its end, with the real worker: through kills, pauses, cancellations and restarts."""

import os
import signal

import pytest
from sqlalchemy import func, select

from tunesmith.db import metrics, models, tables
from tunesmith.jobs.names import checkpoint_id, fine_tuned_id
from tunesmith.models.artifact import read_adapter

from .conftest import Bench

pytestmark = pytest.mark.slow

NUM_STEPS = 10


def current_steps(bench, job_id):
    with bench.database.read() as connection:
        return metrics.list_current(connection, job_id)


def rows_of(bench, table, job_id):
    with bench.database.read() as connection:
        return connection.execute(select(func.count()).select_from(table).where(table.c.job_id == job_id)).scalar_one()


def kill_at_step(bench, job_id, attempt, step):
    bench.wait_for_step(job_id, attempt, step)
    os.kill(bench.worker_pid(job_id, attempt), signal.SIGKILL)


def test_a_job_behind_a_failed_one_ends_with_a_model_that_can_be_served(bench_everywhere, bad_rows):
    bench = bench_everywhere
    bad = bench.order(bench.upload(bad_rows, "mine.jsonl"))
    job_id = bench.order(order={"suffix": "my model"})
    failed = bench.wait_for(bad, "failed")
    assert (failed.error["code"], failed.error["param"], failed.attempt) == ("invalid_training_file", "training_file", 0)
    assert "1 of 21 examples of mine.jsonl cannot be used: line 6: " in failed.error["message"]
    bench.wait(lambda: bench.job(job_id).status != "validating_files")
    delete_blobs(bench)
    job = bench.wait_for(job_id, "succeeded")
    with bench.database.read() as connection:
        model = models.get(connection, job.result["fine_tuned_model"], job.project)
    assert model.id.startswith("ft:tunesmith/tiny:local:my-model:")
    assert read_adapter(bench.settings.dirs.root / model.path).content_hash == model.content_hash
    assert job.result["trained_tokens"] > 0
    assert [row.step for row in current_steps(bench, job_id)] == list(range(1, NUM_STEPS + 1))
    said = [event.message for event in bench.events(job_id)]
    assert said[0] == f"Created fine-tuning job: {job_id}"
    assert said[-2:] == [f"New fine-tuned model created: {model.id}", "The job has successfully completed"]


def delete_blobs(bench):
    """As a client may, once the job has its own link to the bytes."""
    for sha256 in list(bench.store.list_old(-60)):
        bench.store.delete(sha256)


def test_a_worker_killed_twice_still_succeeds_and_each_step_counts_once(bench):
    job_id = bench.order()
    kill_at_step(bench, job_id, attempt=1, step=3)
    kill_at_step(bench, job_id, attempt=2, step=6)
    job = bench.wait_for(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (3, 2)
    assert [row.step for row in current_steps(bench, job_id)] == list(range(1, NUM_STEPS + 1))
    pairs = [(event.attempt, event.seq) for event in bench.events(job_id)]
    assert len(pairs) == len(set(pairs))
    assert rows_of(bench, tables.metrics, job_id) == len(bench.events(job_id, "step"))
    for resumed in bench.events(job_id, "resumed"):
        early = [row for row in current_steps(bench, job_id) if row.step <= resumed.payload["step"]]
        assert all(row.attempt < resumed.attempt for row in early)
    assert sum("killed by SIGKILL" in event.message for event in bench.events(job_id)) == 2


def test_a_cancelled_job_ends_its_worker_even_one_that_does_not_listen_and_leaves_no_model(bench):
    """A worker that still loads its base looks at no order; it is killed when its time is over."""
    job_id = bench.order(recipe={"method": {"epochs": 900}})
    pid = bench.wait(lambda: bench.worker_pid(job_id, 1))
    assert bench.queue.cancel(job_id).status == "cancelled"
    bench.wait(lambda: bench.job(job_id).lease_token is None)
    assert not os.path.exists(f"/proc/{pid}")
    assert bench.job(job_id).status == "cancelled"
    with bench.database.read() as connection:
        assert models.list_all(connection) == []


def test_a_paused_job_goes_on_from_where_it_was(bench):
    job_id = bench.order(recipe={"method": {"epochs": 8}})
    bench.wait_for_step(job_id, attempt=1, step=1)
    bench.queue.pause(job_id)
    job = bench.wait_for(job_id, "paused")
    assert bench.worker_pid(job_id, job.attempt) is None
    bench.queue.resume(job_id)
    bench.supervisor.wake()
    done = bench.wait_for(job_id, "succeeded")
    assert (done.attempt, done.crashes) == (2, 0)
    steps = current_steps(bench, job_id)
    assert [row.step for row in steps] == list(range(1, len(steps) + 1))
    assert {row.attempt for row in steps} == {1, 2}


def test_an_interrupted_worker_is_started_again_and_it_is_no_failure(bench):
    job_id = bench.order(recipe={"method": {"epochs": 8}})
    bench.wait_for_step(job_id, attempt=1, step=1)
    os.kill(bench.worker_pid(job_id, 1), signal.SIGTERM)
    job = bench.wait_for(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (2, 0)
    steps = current_steps(bench, job_id)
    assert [row.step for row in steps] == list(range(1, len(steps) + 1))
    assert any("Attempt 1 was interrupted" in event.message for event in bench.events(job_id))


def test_a_server_that_stops_gives_its_job_back_and_the_next_one_finishes_it(bench):
    job_id = bench.order(recipe={"method": {"epochs": 8}})
    bench.wait_for_step(job_id, attempt=1, step=1)
    bench.supervisor.stop()
    assert bench.worker_pid(job_id, 1) is None
    stopped = bench.job(job_id)
    assert (stopped.status, stopped.crashes, stopped.lease_token) == ("queued", 0, None)
    bench.supervisor = bench.new_supervisor()
    bench.supervisor.start()
    bench.wait_for(job_id, "succeeded")


def test_a_job_whose_supervisor_is_lost_is_taken_over(tmp_path):
    """The first supervisor dies without a word: here, it never was; its lease is all that is left of it."""
    bench = Bench(tmp_path / "data")
    job_id = bench.order()
    bench.supervisor._check_one("fine_tuning")
    lost = bench.queue.claim("nobody:1:0")
    assert lost.id == job_id
    with bench.database.write() as connection:
        connection.execute(tables.jobs.update().values(lease_until=0))
    bench.supervisor.start()
    job = bench.wait_for(job_id, "succeeded")
    assert (job.attempt, job.crashes) == (2, 1)
    bench.supervisor.stop()
    bench.database.close()


def test_a_file_without_rows_or_of_no_known_shape_fails_the_job(bench):
    for text in ("", '{"a": 1}\n', "not json\n"):
        job = bench.wait_for(bench.order(bench.upload(text, "mine.jsonl")), "failed")
        assert job.error["code"] == "invalid_training_file"
        assert "mine.jsonl" in job.error["message"]


def test_a_tuned_models_id_has_openais_parts():
    name = fine_tuned_id("tunesmith/tiny", None, "ftjob-1")
    assert name == fine_tuned_id("tunesmith/tiny", None, "ftjob-1") != fine_tuned_id("tunesmith/tiny", None, "ftjob-2")
    assert checkpoint_id(name, 88) == f"{name}:ckpt-step-88"
    kind, base, organization, suffix, tail = name.split(":")
    assert (kind, base, organization, suffix, len(tail)) == ("ft", "tunesmith/tiny", "local", "", 8)
