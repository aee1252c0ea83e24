"""One job that trains, seen by the official client: its events, numbers, result file, checkpoints, who may use them, its end."""

import base64
import http.client
import io
import json
import threading
import time

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from tunesmith.db import keys, projects
from tunesmith.paths import SUPPORT_DESK

pytestmark = pytest.mark.slow

ROWS = (SUPPORT_DESK / "train.jsonl").read_bytes().splitlines(keepends=True)
HELLO = [{"role": "user", "content": "hi"}]
FOLLOWED: dict[str, list[bytes]] = {}
"""Job -> its stream of events, as it was read from the job's first moment to its end."""
STEPS = 8
"""16 rows in batches of 8: two steps an epoch, four epochs."""


@pytest.fixture(scope="module")
def job(served):
    client = served.client()
    train, validation = (
        client.files.create(file=(f"{name}.jsonl", io.BytesIO(b"".join(rows))), purpose="fine-tune").id
        for name, rows in (("train", ROWS[:16]), ("validation", ROWS[16:20]))
    )
    job = client.fine_tuning.jobs.create(
        model="tunesmith/tiny", training_file=train, validation_file=validation, suffix="seen",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}},
        extra_body={"recipe": {"adapter": {"rank": 2}, "threads": 1}},
    )
    stream = threading.Thread(target=lambda: followed.append(raw(served, f"/v1/fine_tuning/jobs/{job.id}/events/stream", {})))
    followed = FOLLOWED.setdefault(job.id, [])
    stream.start()
    running = False
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.05)
        job = client.fine_tuning.jobs.retrieve(job.id)
        FineTuningJob.model_validate(job.to_dict(), strict=True)
        if job.status == "running" and job.hyperparameters.batch_size != "auto":
            running = True
    assert job.status == "succeeded", job.error
    assert running, "the chosen numbers were not told while it ran"
    stream.join()
    return job


@pytest.fixture(scope="module")
def checkpoints(served, job):
    return served.client().fine_tuning.jobs.checkpoints.list(job.id).data


def answer(client, model):
    return client.chat.completions.create(model=model, messages=HELLO, max_tokens=4, temperature=0)


def test_the_numbers_that_were_left_open_are_told(job):
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (4, 8)
    assert job.hyperparameters.learning_rate_multiplier == 1
    assert job.method.supervised.hyperparameters.to_dict() == job.hyperparameters.to_dict()
    assert job.trained_tokens > 0
    assert job.fine_tuned_model.startswith("ft:tunesmith/tiny:local:seen:")


def test_its_log_tells_openais_story_in_openais_words(client, job):
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=7))
    for event in events:
        FineTuningJobEvent.model_validate(event.to_dict(), strict=True)
    told = [event.message for event in reversed(events)]
    wanted = [
        f"Created fine-tuning job: {job.id}", f"Validating training file: {job.training_file}",
        "Files validated, moving job to queued state", "Fine-tuning job started", "Checkpoint created at step 2",
        "Checkpoint created at step 8", f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    assert [message for message in told if message in wanted] == wanted
    measured = [event.data for event in events if event.type == "metrics" and "full_valid_loss" in event.data]
    assert {"step", "total_steps", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy",
            "full_valid_loss", "full_valid_mean_token_accuracy"} <= set(measured[0])
    assert (measured[0]["step"], measured[0]["total_steps"]) == (8, 8)
    line = next(message for message in reversed(told) if message.startswith("Step 8/8: training loss="))
    assert ", validation loss=" in line
    assert ", full validation loss=" in line


def test_its_events_come_as_a_stream_that_can_be_resumed(served, client, job):
    listed = [event.id for event in client.fine_tuning.jobs.list_events(job.id, limit=1000)][::-1]
    stream = client.get(
        f"/fine_tuning/jobs/{job.id}/events/stream", cast_to=FineTuningJobEvent, stream=True,
        stream_cls=openai.Stream[FineTuningJobEvent],
    )
    assert [event.id for event in stream] == listed
    assert ids(FOLLOWED[job.id][0]) == listed
    path = f"/v1/fine_tuning/jobs/{job.id}/events/stream"
    resumed = raw(served, path, {"last-event-id": listed[-3]})
    assert ids(resumed) == listed[-2:]
    assert resumed.endswith(b"data: [DONE]\n\n")
    assert served.request("GET", path, headers={"last-event-id": "ftevent-nobody"})[0] == 400


def ids(stream):
    return [line[4:] for line in stream.decode().splitlines() if line.startswith("id: ")]


def raw(served, path, headers):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=280)
    connection.request("GET", path, headers={"authorization": f"Bearer {served.key}"} | headers)
    data = connection.getresponse().read()
    connection.close()
    return data


def test_its_result_file_is_base64_as_openai_serves_it_and_csv_for_those_who_ask(client, job):
    file = client.files.retrieve(job.result_files[0])
    assert (file.purpose, file.filename) == ("fine-tune-results", "step_metrics.csv")
    table = base64.b64decode(client.files.content(file.id).text).decode()
    assert client.files.content(file.id, extra_headers={"accept": "text/csv"}).text == table
    header, *rows = table.splitlines()
    assert header == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, STEPS + 1))
    assert rows[0].endswith(",,")
    assert all(float(cell) >= 0 for cell in rows[-1].split(","))


def test_the_last_three_epochs_are_checkpoints_newest_first(client, job, checkpoints):
    assert [each.step_number for each in checkpoints] == [8, 6, 4]
    for each in checkpoints:
        FineTuningJobCheckpoint.model_validate(each.to_dict(), strict=True)
        assert each.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-{each.step_number}"
        assert each.metrics.step == each.step_number
        assert each.metrics.train_loss > 0
    assert checkpoints[0].metrics.full_valid_loss > 0
    pages = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    assert [each.id for each in pages] == [each.id for each in checkpoints]


def test_a_checkpoint_answers_by_its_name_as_the_model_does(client, job, checkpoints):
    for name in (job.fine_tuned_model, checkpoints[1].fine_tuned_model_checkpoint):
        assert answer(client, name).model == name
        assert client.completions.create(model=name, prompt="hi", max_tokens=2).model == name
        assert client.models.retrieve(name).to_dict()["job_id"] == job.id
    hashes = {client.models.retrieve(each.fine_tuned_model_checkpoint).to_dict()["content_hash"] for each in checkpoints}
    assert len(hashes) == 3
    assert client.models.retrieve(job.fine_tuned_model).to_dict()["content_hash"] in hashes


def test_a_permission_makes_a_checkpoint_usable_in_another_project_until_it_is_taken_back(served, client, checkpoints):
    name = checkpoints[2].fine_tuned_model_checkpoint
    with served.desk.database.write() as connection:
        project = projects.create(connection, "guests")
        other = served.client(api_key=keys.create(connection, "guest", project=project.id)[1])
    permissions = client.fine_tuning.checkpoints.permissions
    with pytest.raises(openai.NotFoundError):
        answer(other, name)
    made = permissions.create(name, project_ids=[project.id]).data[0]
    assert (made.object, made.project_id) == ("checkpoint.permission", project.id)
    assert permissions.create(name, project_ids=[project.id]).data[0].id == made.id
    assert answer(other, name).model == name
    assert [each.id for each in permissions.list(name)] == [made.id]
    assert permissions.list(name, project_id="proj_none").data == []
    with pytest.raises(openai.NotFoundError):
        other.models.delete(name)
    with pytest.raises(openai.NotFoundError):
        other.fine_tuning.checkpoints.permissions.list(name)
    with pytest.raises(openai.BadRequestError) as caught:
        permissions.create(name, project_ids=["proj_nobody"])
    assert caught.value.param == "project_ids"
    assert permissions.delete(made.id, fine_tuned_model_checkpoint=name).deleted
    with pytest.raises(openai.NotFoundError):
        answer(other, name)
    with pytest.raises(openai.NotFoundError):
        permissions.delete(made.id, fine_tuned_model_checkpoint=name)


def test_a_version_is_told_with_its_size_and_rank(served, client, job):
    name = client.models.retrieve(job.fine_tuned_model).to_dict()["content_hash"]
    version = served.request("GET", f"/v1/adapters/{name}")[2]
    assert (version["kind"], version["rank"], version["models"][-1]) == ("lora", 2, job.fine_tuned_model)
    assert version["bytes"] > 1000


def test_at_last_a_deleted_checkpoint_and_a_deleted_model_are_refused_everywhere(served, client, job, checkpoints):
    names = [each.fine_tuned_model_checkpoint for each in checkpoints]
    assert client.models.delete(names[2]).deleted
    gone = {names[2]}
    assert [each.step_number for each in client.fine_tuning.jobs.checkpoints.list(job.id)] == [8, 6]
    assert client.models.delete(job.fine_tuned_model).deleted
    gone |= {job.fine_tuned_model, *names}
    for name in gone:
        for ask in (lambda name: answer(client, name), client.models.retrieve, client.models.delete):
            with pytest.raises(openai.NotFoundError) as caught:
                ask(name)
            assert caught.value.code == "model_not_found"
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []
    folder = served.desk.settings.dirs.run(job.id)
    assert not (folder / "artifacts").exists()
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model == job.fine_tuned_model
    assert json.loads((folder / "result.json").read_text())["steps"] == STEPS
