"""Versions of adapters by content hash, and aliases that move between them. Rows only: no adapter was made."""

import json

import openai
import pytest
from orders import tuning_job

from tunesmith.db import checkpoints, jobs, keys, models, projects
from tunesmith.db.checkpoints import Checkpoint
from tunesmith.db.models import FineTuned
from tunesmith.types import new_id

BASE, NAMES = "tunesmith/tiny", ("ft:tunesmith/tiny:local:one:aaaaaaaa", "ft:tunesmith/tiny:local:two:bbbbbbbb")


@pytest.fixture(scope="module")
def tuned(served):
    """Two models; the first has a checkpoint that is the same adapter."""
    with served.desk.database.write() as connection:
        for number, name in enumerate(NAMES):
            job = f"ftjob-{number}"
            jobs.add(connection, tuning_job(job, status="succeeded"))
            path = f"runs/{job}/artifacts/adapter"
            models.add(connection, FineTuned(name, BASE, "none", path, f"hash{number}", job, number + 1))
        same = Checkpoint("ftjob-0", 4, f"{NAMES[0]}:ckpt-step-4", BASE, "none", "runs/ftjob-0/artifacts/step-4", "hash0", 1)
        checkpoints.put(connection, same)
    return NAMES


def put(served, name, model, **fields):
    body = json.dumps({"name": name, "model": model} | fields)
    status, _, answer = served.request("POST", "/v1/adapters/aliases", body, {"content-type": "application/json"})
    return status, answer


def test_versions_are_listed_by_content_hash_with_all_their_names(served, tuned):
    listed = served.request("GET", "/v1/adapters")[2]["data"]
    wanted = [("hash0", [NAMES[0], f"{NAMES[0]}:ckpt-step-4"]), ("hash1", [NAMES[1]])]
    assert [(each["id"], each["models"]) for each in listed] == wanted
    assert served.request("GET", "/v1/adapters/hash1")[2]["job_id"] == "ftjob-1"
    assert served.request("GET", "/v1/adapters/hash9")[0] == 404


def test_an_alias_answers_as_a_model_and_moving_it_is_one_order(served, client, tuned):
    status, made = put(served, "live", NAMES[0])
    assert (status, made["model"], made["previous"]) == (200, NAMES[0], None)
    assert client.models.retrieve("live").id == NAMES[0]
    status, moved = put(served, "live", NAMES[1])
    assert (moved["id"], moved["model"], moved["previous"]) == (made["id"], NAMES[1], NAMES[0])
    assert client.models.retrieve("live").id == NAMES[1]
    assert served.request("GET", "/v1/adapters/hash1")[2]["aliases"] == ["live"]
    assert served.request("GET", "/v1/adapters/aliases/live")[2] == moved
    assert served.request("GET", "/v1/adapters/aliases")[2]["data"] == [moved]
    assert put(served, "live", NAMES[1])[1]["previous"] == NAMES[0]


def test_a_model_that_an_alias_names_stays_until_the_alias_is_gone(served, client, tuned):
    put(served, "kept", f"{NAMES[0]}:ckpt-step-4")
    with pytest.raises(openai.BadRequestError, match="The alias kept answers as") as caught:
        client.models.delete(NAMES[0])
    assert caught.value.code == "model_in_use"
    assert client.models.retrieve(NAMES[0]).id == NAMES[0]
    status, _, gone = served.request("DELETE", "/v1/adapters/aliases/kept")
    assert (status, gone["deleted"]) == (200, True)
    assert served.request("DELETE", "/v1/adapters/aliases/kept")[0] == 404
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("kept")


@pytest.mark.parametrize(
    ("name", "model", "param"),
    [("tunesmith/tiny", NAMES[0], "name"), ("ft:mine", NAMES[0], "name"), ("", NAMES[0], "name"), ("new", "ft:nobody", "model"),
     ("new", BASE, "model")],
)
def test_what_is_no_alias_is_refused(served, tuned, name, model, param):
    status, answer = put(served, name, model)
    assert (status, answer["error"]["param"]) == (400, param)


def test_another_project_has_its_own_aliases_and_sees_no_adapters(served, tuned):
    put(served, "live", NAMES[1])
    with served.desk.database.write() as connection:
        project = projects.create(connection, new_id("name"))
        other = {"authorization": f"Bearer {keys.create(connection, 'other', project=project.id)[1]}"}
    for path in ("/v1/adapters", "/v1/adapters/aliases"):
        assert served.request("GET", path, headers=other)[2]["data"] == []
    for path in ("/v1/adapters/hash1", "/v1/adapters/aliases/live", "/v1/models/live"):
        assert served.request("GET", path, headers=other)[0] == 404
