"""Jobs through the official client: orders, lists, events, and what is refused. That a job trains is tested in test_light."""

import io
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tunesmith.db import keys, projects
from tunesmith.paths import SUPPORT_DESK
from tunesmith.recipes import tracking
from tunesmith.recipes.adapter import ADAPTERS
from tunesmith.recipes.method import METHODS, SftMethod
from tunesmith.types import new_id

ROWS = (SUPPORT_DESK / "train.jsonl").read_bytes()


@pytest.fixture(scope="module")
def broken_file(served):
    """A file that fails validation, so that a job on it ends without a worker."""
    return served.client().files.create(file=("broken.jsonl", io.BytesIO(b'{"messages": []}\n' * 3)), purpose="fine-tune").id


def ended(client, job):
    while job.status not in {"succeeded", "failed", "cancelled"}:
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def order(client, file_id, model="tunesmith/tiny", **fields):
    return client.fine_tuning.jobs.create(model=model, training_file=file_id, **fields)


CHECK = {
    "type": "string_check", "name": "same", "input": "{{ sample.output_text }}", "reference": "{{ item.x }}", "operation": "eq",
}


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
    said = "Invalid file format. 3 of 3 examples of broken.jsonl cannot be used: line 1: "
    assert done.error.message.startswith(f"The job failed due to an invalid training file. {said}")
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
        ({"integrations": [{"type": "wandb", "wandb": {"name": "n"}}]}, "integrations.0.wandb.project"),
        ({"method": {"type": "supervised", "dpo": {"hyperparameters": {"beta": 1}}}}, "method.dpo"),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 51}}}},
         "method.supervised.hyperparameters.n_epochs"),
        ({"method": {"type": "reinforcement"}}, "method.reinforcement.grader"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": CHECK}}}, "method.type"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python", "source": "x"}}}},
         "method.reinforcement.grader.type"),
        ({"extra_body": {"recipe": {"method": {"type": "magic"}}}}, "recipe.method.type"),
        ({"extra_body": {"recipe": {"adapter": {"type": "magic"}}}}, "recipe.adapter.type"),
        ({"extra_body": {"recipe": {"tracking": []}}}, "recipe.tracking"),
        ({"extra_body": {"recipe": {"checkpoints": {"sync": "s3://mine/x"}}}}, "recipe.checkpoints.sync"),
        ({"suffix": "a:b"}, "suffix"),
        ({"metadata": {"key": "x" * 513}}, "metadata.key"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(client, broken_file, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        order(client, broken_file, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_job_can_be_ordered_for_every_method_and_adapter_kind_of_the_tables(client, broken_file, method, adapter):
    asked = {"recipe": {"method": {"type": method}, "adapter": {"type": adapter}}}
    if adapter == "full" and METHODS[method]().needs_reference:
        with pytest.raises(openai.BadRequestError, match="trains the base away, with which .* compares"):
            order(client, broken_file, extra_body=asked)
        return
    if method == "reward" and adapter != "lora":
        with pytest.raises(openai.BadRequestError, match="adapter.type must be lora"):
            order(client, broken_file, extra_body=asked)
        return
    job = order(client, broken_file, extra_body=asked)
    assert (job.to_dict()["recipe"]["method"]["type"], job.to_dict()["recipe"]["adapter"]["type"]) == (method, adapter)


class Rewarded(SftMethod):
    type: str = "grpo"
    grader: dict[str, Any]
    response_format: dict[str, Any] | None = None
    eval_interval: int | None = None
    reasoning_effort: str | None = None


def test_what_the_table_of_methods_gains_can_be_ordered(client, broken_file, monkeypatch):
    """No line of the API changes; OpenAI's own model takes the echo."""
    dpo = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}}
    rewarded = {"grader": CHECK, "response_format": {"type": "json_object"}, "hyperparameters": {"eval_interval": 5}}
    reinforcement = {"type": "reinforcement", "reinforcement": rewarded}
    with pytest.raises(openai.BadRequestError, match="is not available on this server") as caught:
        order(client, broken_file, validation_file=broken_file, method=reinforcement)
    assert (caught.value.code, caught.value.param) == ("not_available", "method.type")
    monkeypatch.setitem(METHODS, "grpo", Rewarded)
    job = order(client, broken_file, method=dpo)
    numbers = job.method.dpo.hyperparameters
    assert (job.method.type, numbers.beta, numbers.n_epochs, numbers.batch_size) == ("dpo", 0.2, 2, "auto")
    with pytest.raises(openai.BadRequestError) as caught:
        order(client, broken_file, method=reinforcement)
    assert caught.value.param == "validation_file"
    job = order(client, broken_file, validation_file=broken_file, method=reinforcement)
    assert job.method.reinforcement.grader.to_dict() == CHECK
    assert job.method.reinforcement.hyperparameters.eval_interval == 5
    assert job.to_dict()["method"]["reinforcement"]["response_format"] == {"type": "json_object"}
    assert job.to_dict()["recipe"]["data"]["format"] == "reinforcement"


def test_a_script_that_names_a_model_of_openais_trains_the_base_that_the_alias_says(talking):
    client = talking.client()
    file = client.files.create(file=("broken.jsonl", io.BytesIO(b'{"messages": []}\n')), purpose="fine-tune").id
    job = order(client, file, model="gpt-4o-mini", hyperparameters={})
    assert (job.model, job.hyperparameters.n_epochs) == ("tunesmith/tiny", "auto")


def test_the_older_place_of_the_hyperparameters_is_read(client, broken_file):
    assert order(client, broken_file, hyperparameters={}).hyperparameters.batch_size == "auto"
    assert order(client, broken_file, hyperparameters={"n_epochs": 2}).hyperparameters.n_epochs == 2


def test_jobs_without_metadata_are_found(client, broken_file):
    bare = order(client, broken_file).id
    marked = order(client, broken_file, metadata={"a": "b"}).id
    found = {job.id for job in client.fine_tuning.jobs.list(extra_query={"metadata": "null"}, limit=100)}
    assert bare in found
    assert marked not in found


def test_integrations_ask_for_what_is_missing_and_are_echoed_where_nothing_is(client, broken_file, monkeypatch):
    asked = [{"type": "wandb", "wandb": {"project": "mine", "tags": ["a"]}}]
    for name in tracking.SETTINGS["wandb"][0]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(openai.BadRequestError, match="Weights & Biases is not available") as caught:
        order(client, broken_file, integrations=asked)
    assert (caught.value.code, caught.value.param) == ("not_available", "integrations")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(openai.BadRequestError, match="Set WANDB_API_KEY"):
        order(client, broken_file, integrations=asked)
    monkeypatch.setenv("WANDB_MODE", "offline")
    job = order(client, broken_file, integrations=asked)
    assert (job.integrations[0].wandb.project, job.integrations[0].wandb.tags) == ("mine", ["a"])
    assert job.to_dict()["recipe"]["tracking"][0]["project"] == "mine"


def test_another_projects_job_does_not_exist(served, client, broken_file):
    job = order(client, broken_file)
    other = served.client(api_key=key_of_another_project(served))
    for ask in (other.fine_tuning.jobs.retrieve, other.fine_tuning.jobs.cancel, other.fine_tuning.jobs.pause,
                other.fine_tuning.jobs.resume, other.fine_tuning.jobs.list_events, other.fine_tuning.jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            ask(job.id)
    assert list(other.fine_tuning.jobs.list()) == []
    with pytest.raises(openai.BadRequestError, match="There is no file"):
        order(other, broken_file)


def key_of_another_project(served):
    with served.desk.database.write() as connection:
        project = projects.create(connection, new_id("name"))
        return keys.create(connection, "other", project=project.id)[1]


def test_a_paused_job_is_answered_with_what_it_was_for_paused_is_no_word_of_openais(client):
    """The supervisor may pause it before or after it is queued; the answer is a state that the SDK's enumeration has."""
    good = client.files.create(file=("rows.jsonl", io.BytesIO(ROWS)), purpose="fine-tune").id
    job = order(client, good)
    answer = client.fine_tuning.jobs.pause(job.id)
    FineTuningJob.model_validate(answer.to_dict(), strict=True)
    assert answer.status in {"validating_files", "queued", "running"}
    while client.fine_tuning.jobs.retrieve(job.id).status != "paused":
        pass
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"


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
