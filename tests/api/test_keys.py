"""Projects and keys over HTTP: made, limited, rotated, revoked at once, archived; nobody gives away more than they have."""

import json

import openai
import pytest

from tunesmith.db import keys


@pytest.fixture
def call(served):
    def call(method, path, body=None, key=None):
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        text = None if body is None else json.dumps(body)
        status, _, value = served.request(method, path, body=text, headers=headers, key=key is None)
        return status, value

    return call


@pytest.fixture
def project(call):
    def make(name):
        status, value = call("POST", "/v1/projects", {"name": name})
        assert status == 200
        return value["id"]

    return make


def test_a_project_is_made_renamed_limited_and_archived(call, project):
    made = project("research")
    assert call("POST", "/v1/projects", {"name": "research"})[1]["error"]["code"] == "name_taken"
    changed = call("POST", f"/v1/projects/{made}", {"name": "lab", "limits": {"tokens_per_day": 1000}})[1]
    assert (changed["name"], changed["limits"]) == ("lab", {"tokens_per_day": 1000})
    assert call("GET", f"/v1/projects/{made}")[1] == changed
    key = call("POST", "/v1/keys", {"name": "k", "project": made})[1]["key"]
    assert call("GET", "/v1/files", key=key)[0] == 200
    assert call("POST", f"/v1/projects/{made}/archive")[1]["archived_at"] is not None
    assert call("GET", "/v1/files", key=key)[0] == 401
    assert made not in [each["id"] for each in call("GET", "/v1/projects?limit=100")[1]["data"]]
    assert made in [each["id"] for each in call("GET", "/v1/projects?limit=100&include_archived=true")[1]["data"]]
    assert call("POST", "/v1/keys", {"name": "late", "project": made})[0] == 400


def test_a_keys_text_is_shown_once(call):
    made = call("POST", "/v1/keys", {"name": "once", "role": "viewer"})[1]
    assert made["key"].startswith(made["id"])
    shown = call("GET", f"/v1/keys/{made['id']}")[1]
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert made["key"] not in json.dumps(call("GET", "/v1/keys?limit=100")[1])


def test_a_revoked_key_is_refused_from_the_next_request_on(served, call):
    made = call("POST", "/v1/keys", {"name": "short"})[1]
    client = served.client(api_key=made["key"])
    assert client.files.list().data is not None
    assert call("DELETE", f"/v1/keys/{made['id']}")[1]["deleted"]
    with pytest.raises(openai.AuthenticationError):
        client.files.list()


def test_a_key_is_renamed_narrowed_and_limited_and_it_holds_at_once(call):
    made = call("POST", "/v1/keys", {"name": "wide", "role": "member"})[1]
    path = f"/v1/keys/{made['id']}"
    assert call("GET", "/v1/files", key=made["key"])[0] == 200
    changed = call("POST", path, {"name": "narrow", "scopes": ["model.request"], "limits": {"tokens_per_day": 5}})[1]
    assert (changed["name"], changed["scopes"], changed["limits"]) == ("narrow", ["model.request"], {"tokens_per_day": 5})
    assert call("GET", "/v1/files", key=made["key"])[0] == 403
    changed = call("POST", path, {"scopes": None, "limits": None})[1]
    assert (changed["name"], changed["scopes"], changed["limits"]) == ("narrow", None, {})
    assert call("GET", "/v1/files", key=made["key"])[0] == 200
    assert call("POST", path, {"role": "owner"})[0] == call("POST", path, {"scopes": ["no.such"]})[0] == 400


def test_nobody_widens_a_key_beyond_their_own(call):
    narrow = call("POST", "/v1/keys", {"name": "clerk", "role": "owner", "scopes": ["keys.read", "keys.write"]})[1]
    status, body = call("POST", f"/v1/keys/{narrow['id']}", {"scopes": None}, key=narrow["key"])
    assert (status, body["error"]["param"]) == (403, "scopes")


def test_a_rotated_key_has_a_successor_and_ends(call):
    made = call("POST", "/v1/keys", {"name": "ci", "role": "member"})[1]
    new = call("POST", f"/v1/keys/{made['id']}/rotate", {"overlap_seconds": 3600})[1]
    assert call("GET", f"/v1/keys/{made['id']}")[1]["successor"] == new["id"]
    assert call("GET", "/v1/files", key=made["key"])[0] == call("GET", "/v1/files", key=new["key"])[0] == 200
    newest = call("POST", f"/v1/keys/{new['id']}/rotate", {"overlap_seconds": 0})[1]
    assert call("GET", "/v1/files", key=new["key"])[0] == 401
    assert call("GET", "/v1/files", key=newest["key"])[0] == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "x", "scopes": ["files.everything"]}, "scopes"),
        ({"name": "x", "expires_at": 1}, "expires_at"),
        ({"name": "x", "limits": {"tokens": 1}}, "limits.tokens"),
        ({"name": "x", "limits": {"tokens_per_day": -1}}, "limits.tokens_per_day"),
        ({"name": "x", "role": "god"}, "role"),
        ({"name": "x", "revoked": None}, "revoked"),
        ({"name": "x\n"}, "name"),
    ],
)
def test_what_a_key_cannot_be_is_refused_by_its_field(call, body, param):
    status, value = call("POST", "/v1/keys", body)
    assert (status, value["error"]["param"]) == (400, param)


def test_an_owner_of_a_project_manages_its_keys_and_no_others(call, project):
    made = project("team")
    owner = call("POST", "/v1/keys", {"name": "boss", "project": made, "role": "owner"})[1]
    mine = call("POST", "/v1/keys", {"name": "mine"}, key=owner["key"])[1]
    assert mine["project"] == made
    assert {each["project"] for each in call("GET", "/v1/keys", key=owner["key"])[1]["data"]} == {made}
    theirs = call("POST", "/v1/keys", {"name": "theirs"})[1]["id"]
    assert call("GET", f"/v1/keys/{theirs}", key=owner["key"])[0] == 404
    assert call("DELETE", f"/v1/keys/{theirs}", key=owner["key"])[0] == 404
    assert call("POST", f"/v1/keys/{theirs}/rotate", {}, key=owner["key"])[0] == 404
    for method, path, body in (
        ("POST", "/v1/keys", {"name": "x", "project": "proj_default"}),
        ("GET", "/v1/keys?project=proj_default", None),
        ("GET", "/v1/usage?project=proj_default", None),
    ):
        assert call(method, path, body, key=owner["key"])[0] == 404
    for path in ("/v1/projects", "/metrics"):
        status, value = call("GET", path, key=owner["key"])
        assert (status, value["error"]["code"]) == (403, "missing_scope")


def test_nobody_gives_away_what_they_do_not_have(call):
    limited = call("POST", "/v1/keys", {
        "name": "l", "role": "owner", "scopes": ["keys.write", "files.read", "model.request"], "models": ["a", "b"],
    })[1]["key"]  # fmt: skip
    refused = [
        {"name": "x", "role": "owner"},
        {"name": "x", "role": "member"},
        {"name": "x", "role": "member", "scopes": ["files.read", "files.write"], "models": ["a"]},
        {"name": "x", "role": "member", "scopes": ["files.read"]},
        {"name": "x", "role": "member", "scopes": ["files.read"], "models": ["*"]},
    ]
    for body in refused:
        assert call("POST", "/v1/keys", body, key=limited)[0] == 403, body
    assert call("POST", "/v1/keys", {"name": "x", "scopes": ["files.read"], "models": ["a"]}, key=limited)[0] == 200


def test_a_key_may_ask_only_its_models(served, call):
    key = call("POST", "/v1/keys", {"name": "m", "models": ["ft:*"]})[1]["key"]
    with pytest.raises(openai.PermissionDeniedError) as caught:
        served.client(api_key=key).chat.completions.create(model="tunesmith/tiny", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found"


def test_what_keys_were_used_is_written(served, call):
    made = call("POST", "/v1/keys", {"name": "used"})[1]
    call("GET", "/v1/files", key=made["key"])
    with served.desk.database.write() as connection:
        keys.touch(connection, served.desk.callers.take_last_used())
    assert call("GET", f"/v1/keys/{made['id']}")[1]["last_used_at"] is not None
