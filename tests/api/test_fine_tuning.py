"""Jobs through the official client: orders, lists, events, and what is refused. That a job trains is tested in test_light."""

import io

import openai
import pytest

from tunesmith.paths import SUPPORT_DESK

ROWS = (SUPPORT_DESK / "train.jsonl").read_bytes()


@pytest.fixture(scope="module")
def broken_file(served):
    """A file that fails validation, so that a job on it ends without a worker."""
    return served.client().files.create(file=("broken.jsonl", io.BytesIO(b'{"messages": []}\n' * 3)), purpose="fine-tune").id


def ended(client, job):
    while job.status not in {"succeeded", "failed", "cancelled"}:
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def order(client, file_id, **fields):
    return client.fine_tuning.jobs.create(model="tunesmith/tiny", training_file=file_id, **fields)


def test_a_job_echoes_what_was_asked_and_fails_with_the_rows_that_are_wrong(client, broken_file):
    job = order(
        client, broken_file, suffix="mine", seed=7, metadata={"team": "a"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        extra_body={"recipe": {"quantization": "nf4", "adapter": {"rank": 8}}},
    )
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "validating_files", "tunesmith/tiny", 7)
    assert (job.user_provided_suffix, job.metadata, job.fine_tuned_model) == ("mine", {"team": "a"}, None)
    assert job.hyperparameters.n_epochs == 2
    assert job.hyperparameters.batch_size == "auto"
    assert (job.to_dict()["recipe"]["quantization"], job.to_dict()["recipe"]["adapter"]["rank"]) == ("nf4", 8)
    done = ended(client, job)
    assert (done.status, done.error.code, done.error.param) == ("failed", "invalid_training_file", "training_file")
    assert done.error.message.startswith("3 of 3 rows of broken.jsonl cannot be used: line 1: ")
    assert done.finished_at is not None


def test_events_are_newest_first_and_page_to_the_first(client, broken_file):
    job = ended(client, order(client, broken_file))
    events = client.fine_tuning.jobs.list_events(job.id).data
    assert events[-1].message == f"Created fine-tuning job: {job.id}"
    assert (events[0].level, events[0].type, events[0].object) == ("error", "message", "fine_tuning.job.event")
    assert [event.id for event in client.fine_tuning.jobs.list_events(job.id, limit=1)] == [event.id for event in events]
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []


def test_jobs_are_listed_newest_first_and_filtered_by_metadata(client, broken_file):
    made = [order(client, broken_file, metadata={"kind": "listed", "odd": str(index % 2)}).id for index in range(4)]
    newest = [job.id for job in client.fine_tuning.jobs.list(limit=2, extra_query={"metadata[kind]": "listed"})]
    assert newest == made[::-1]
    odd = client.fine_tuning.jobs.list(metadata={"kind": "listed", "odd": "1"})
    assert [job.id for job in odd] == [made[3], made[1]]


def test_a_file_that_is_missing_or_was_meant_for_something_else_is_refused(client):
    other = client.files.create(file=("rows.jsonl", io.BytesIO(ROWS)), purpose="evals").id
    for file_id, code in (("file-nobody", "file_not_found"), (other, "wrong_purpose")):
        with pytest.raises(openai.BadRequestError) as caught:
            order(client, file_id)
        assert (caught.value.code, caught.value.param) == (code, "training_file")
    good = client.files.create(file=("rows.jsonl", io.BytesIO(ROWS)), purpose="fine-tune").id
    with pytest.raises(openai.BadRequestError) as caught:
        order(client, good, validation_file=other)
    assert (caught.value.code, caught.value.param) == ("wrong_purpose", "validation_file")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"extra_body": {"recipe": {"adapter": {"rank": -1}}}}, "recipe.adapter.rank"),
        ({"extra_body": {"recipe": {"method": {"rank": 8}}}}, "recipe.method.rank"),
        ({"extra_body": {"recipe": 5}}, "recipe"),
        ({"extra_body": {"recipe": {"data": {"train": "/etc/passwd"}}}}, "recipe.data.train"),
        ({"extra_body": {"organization_id": "org-other"}}, "organization_id"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"suffix": "a:b"}, "suffix"),
        ({"metadata": {"key": "x" * 513}}, "metadata.key"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(client, broken_file, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        order(client, broken_file, **fields)
    assert caught.value.param == param


def test_a_finished_job_cannot_be_changed_and_an_unknown_one_not_found(client, broken_file):
    job = ended(client, order(client, broken_file))
    for change in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.BadRequestError, match="already failed"):
            change(job.id)
        with pytest.raises(openai.NotFoundError):
            change("ftjob-nobody")
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.list_events("ftjob-nobody")


def test_a_cancelled_job_is_final_at_once(client):
    good = client.files.create(file=("rows.jsonl", io.BytesIO(ROWS)), purpose="fine-tune").id
    job = order(client, good)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
