"""What belongs to a project is not there for another: same 404 as for what never was, and nothing in any list.

Generated from the table of routes: a parameter of a path that has no maker here fails, so no noun can be forgotten.
"""

import json
import re

import pytest
from fastapi.routing import iter_route_contexts

from tunesmith.api.app import create_app
from tunesmith.db import aliases, evals, events, jobs, keys, models, permissions, projects, stored, webhooks
from tunesmith.db.events import JobEvent
from tunesmith.db.jobs import Job
from tunesmith.db.models import FineTuned
from tunesmith.settings import Settings
from tunesmith.types import new_id, unix_now

ORGANIZATION = {"base_id", "project_id"}
"""What all projects share; scopes guard it (test_scopes)."""
OF_BODY = {
    "/v1/files": {"purpose": "batch"},
    "/v1/keys/{key_id}/rotate": {},
    "/v1/uploads/{upload_id}/complete": {"part_ids": ["part_x"]},
    "/v1/fine_tuning/checkpoints/{model:path}/permissions": {"project_ids": ["proj_default"]},
    "/v1/chat/completions/{completion_id}": {"metadata": {}},
    "/v1/evals/{eval_id}": {"name": "mine"},
    "/v1/evals/{eval_id}/runs": {
        "data_source": {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"q": "x"}}]}},
    },
    "/v1/webhook_endpoints/{webhook_id}": {"name": "mine"},
    "/v1/webhook_endpoints/{webhook_id}/test": {"event_type": "batch.completed"},
}
"""Bodies of the routes that want one; the others take `{}`."""
UPLOAD = '--b\r\ncontent-disposition: form-data; name="data"; filename="x"\r\n\r\nx\r\n--b--\r\n'


def routes():
    app = create_app(Settings())
    return sorted(
        (method, context.path) for context in iter_route_contexts(app.routes) for method in context.methods if method != "HEAD"
    )


def parameters(path):
    return re.findall(r"{(\w+)", path)


OWNED = [(method, path) for method, path in routes() if parameters(path) and not ORGANIZATION & set(parameters(path))]
LISTS = [path for method, path in routes() if method == "GET" and not parameters(path) and path.startswith("/v1/")]


@pytest.fixture(scope="module")
def theirs(served):
    """Parameter of a path -> the id of one that the default project owns."""
    file = served.client().files.create(file=("x.jsonl", b'{"messages": []}\n'), purpose="user_data")
    upload = served.client().uploads.create(filename="x", purpose="batch", bytes=1, mime_type="text/plain")
    now = unix_now()
    with served.desk.database.write() as connection:
        made = {kind: Job(new_id(kind), recipe, ORDERS[kind], now, kind, status="cancelled") for kind, recipe in RECIPES.items()}
        each = evals.Eval(new_id("eval"), "theirs", {"type": "custom", "item_schema": {}}, [], now, float(now))
        evals.add(connection, each)
        for job in made.values():
            jobs.add(connection, job if job.kind != "eval_run" else Job(**{**vars(job), "parent": each.id}))
        events.add(connection, JobEvent(made["fine_tuning"].id, 0, 1, "desk", "secret", 0.0))
        tuned, base = made["fine_tuning"].id, "tunesmith/tiny"
        model = FineTuned(f"ft:{base}:local:theirs:1", base, "none", "x", "hash-1", tuned, now)
        models.add(connection, model)
        alias = aliases.put(connection, "proj_default", "alias-1", model.id)
        permission = permissions.grant(connection, model.id, "proj_third")
        answers = {kind: stored.Stored(f"{kind}-1", kind, "proj_default", "m", now, {}, DOCUMENT) for kind in stored.NAMES}
        stored.add_all(connection, list(answers.values()))
        webhook = webhooks.Webhook("webhook-1", "proj_default", "n", "https://example.com", [], now, now, webhooks.new_salt())
        webhooks.add(connection, webhook)
        key, _ = keys.create(connection, "theirs")
    return {
        "file_id": file.id, "upload_id": upload.id, "job_id": made["fine_tuning"].id, "batch_id": made["batch"].id,
        "model": model.id, "model_id": model.id, "permission_id": permission.id, "completion_id": answers["completion"].id,
        "response_id": answers["response"].id, "key_id": key.id, "eval_id": each.id, "run_id": made["eval_run"].id,
        "item_id": "outputitem-1", "output_item_id": "outputitem-1", "webhook_id": webhook.id,
        "content_hash": model.content_hash, "name": alias.name,
    }  # fmt: skip


ORDERS = {
    "fine_tuning": {
        "model": "tunesmith/tiny", "training_file": "file-1", "validation_file": None, "suffix": None, "hyperparameters": {},
    },
    "batch": {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h"},
    "eval_run": {},
}
RECIPES = {"fine_tuning": {"seed": 1}, "batch": {"endpoint": "/v1/chat/completions", "expires": 1}, "eval_run": {}}
DOCUMENT = json.dumps({"request": {"messages": []}, "answer": {"id": "x", "choices": []}, "items": []})


@pytest.fixture(scope="module")
def stranger(served):
    """An owner of a project that has nothing."""
    with served.desk.database.write() as connection:
        project = projects.create(connection, "strangers")
        return keys.create(connection, "stranger", project=project.id)[1]


@pytest.fixture(scope="module")
def call(served):
    def call(method, path, key, ids):
        url = re.sub(r"{(\w+)(:path)?}", lambda match: ids[match.group(1)].replace("/", "%2F"), path)
        body, kind = json.dumps(OF_BODY.get(path, {})), "application/json"
        if path.endswith("/parts"):
            body, kind = UPLOAD, "multipart/form-data; boundary=b"
        headers = {"content-type": kind, "authorization": f"Bearer {key}"}
        status, _, value = served.request(method, url, body=None if method == "GET" else body, headers=headers, key=False)
        return status, value

    return call


def test_every_parameter_of_a_path_has_a_maker(theirs):
    assert {name for _, path in OWNED for name in parameters(path)} <= set(theirs)


@pytest.mark.parametrize(("method", "path"), OWNED)
def test_what_is_anothers_is_not_there(call, theirs, stranger, method, path):
    status, value = call(method, path, stranger, theirs)
    assert status == 404, value
    missing = {name: f"{name}-that-never-was" for name in theirs}
    _, never = call(method, path, stranger, missing)
    assert blank(value, theirs) == blank(never, missing), "the answer tells that there is something"


def blank(value, ids):
    text = json.dumps(value)
    for each in sorted(ids.values(), key=len, reverse=True):
        text = text.replace(each, "ID")
    return text


@pytest.mark.parametrize("path", LISTS)
def test_no_list_shows_what_is_anothers(call, theirs, stranger, path):
    status, value = call("GET", path, stranger, {})
    assert status in (200, 403)
    assert not [each for each in theirs.values() if each in json.dumps(value)]


@pytest.mark.parametrize("path", [
    "/v1/files/{file_id}", "/v1/batches/{batch_id}", "/v1/fine_tuning/jobs/{job_id}", "/v1/keys/{key_id}",
])  # fmt: skip
def test_it_is_there_for_its_owner(served, call, theirs, path):
    """Or the tests above would prove nothing."""
    assert call("GET", path, served.key, theirs)[0] == 200
