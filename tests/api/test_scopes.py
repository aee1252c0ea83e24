"""Every route declares its scope, and is closed to no key, a wrong key, a key without that scope and a key of another project.

Generated from the application's own table of routes: one that is forgotten cannot ship.
"""

import http.client
import json

import openai
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from tunesmith.api.app import create_app
from tunesmith.api.deps import Needs
from tunesmith.api.scopes import ALL, ORGANIZATION, ROLES, scopes_of
from tunesmith.db import keys
from tunesmith.db.keys import Key
from tunesmith.settings import Settings

OPEN = {("GET", "/"), ("GET", "/health"), ("GET", "/openapi.json"), ("HEAD", "/openapi.json")}


def declared(context):
    if not isinstance(context.original_route, APIRoute):
        return [context.original_route.app.needs]  # the short way has no other declaration
    return [each.call for each in context.dependant.dependencies if isinstance(each.call, Needs)]


def table():
    """(method, path, declared scopes) of every route."""
    app = create_app(Settings())
    return [
        (method, context.path, [each.scope(method) for each in declared(context)])
        for context in iter_route_contexts(app.routes)
        for method in sorted(context.methods)
        if (method, context.path) not in OPEN
    ]


ROUTES = [each for each in table() if each[1] != "/metrics"]
"""All but the one whose answer is not JSON; `test_metrics_are_for_the_organization` has it."""
CALLS = sorted({(method, path) for method, path, _ in ROUTES})


def filled(path):
    return path.replace(":path}", "}").replace("{", "no_such_").replace("}", "")


@pytest.fixture(scope="module")
def make_key(served):
    def make(**rights):
        with served.desk.database.write() as connection:
            return keys.create(connection, "scopes", **rights)[1]

    return make


@pytest.fixture(scope="module")
def call(served):
    def call(method, path, key, body="{}"):
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        status, _, value = served.request(method, path, body=body, headers=headers, key=False)
        return status, value

    return call


def test_every_route_declares_its_scope():
    assert len(ROUTES) > 50
    assert [(method, path) for method, path, scopes in ROUTES if not scopes] == []


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_without_a_key_or_with_a_wrong_one_nothing_opens(call, method, path):
    for key in (None, "sk-wrong"):
        status, value = call(method, filled(path), key)
        assert (status, value["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(("method", "path", "scopes"), ROUTES)
def test_a_key_with_all_scopes_but_the_declared_one_is_refused(call, make_key, method, path, scopes):
    for scope in scopes:
        status, value = call(method, filled(path), make_key(scopes=sorted(ALL - {scope})))
        assert (status, value["error"]["code"]) == (403, "missing_scope")
        assert scope in value["error"]["message"]


@pytest.mark.parametrize(("method", "path", "scopes"), ROUTES)
def test_the_declared_scope_alone_opens_a_route(call, make_key, method, path, scopes):
    status, value = call(method, filled(path), make_key(scopes=scopes))
    assert status not in (401, 403), value


def test_metrics_are_for_the_organization(served, make_key):
    assert [scopes for _, path, scopes in table() if path == "/metrics"] == [["metrics.read"]]
    for key, expected in ((served.key, 200), (make_key(role="member"), 403)):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("GET", "/metrics", headers={"authorization": f"Bearer {key}"})
        assert connection.getresponse().status == expected
        connection.close()


def test_roles_are_nested_and_only_the_organizations_owner_manages_all():
    assert ROLES["viewer"] < ROLES["member"] < ROLES["owner"] == ALL
    assert all(scope.endswith(".read") for scope in ROLES["viewer"])
    assert not ROLES["member"] & ORGANIZATION
    owner = Key("ts_x", "", "owner", 0)
    assert scopes_of(owner) == ALL
    assert not scopes_of(Key("ts_x", "", "owner", 0, project="proj_x")) & ORGANIZATION
    assert scopes_of(Key("ts_x", "", "narrow", 0, role="viewer", scopes=["files.read", "files.write"])) == {"files.read"}


def test_a_scope_that_does_not_exist_cannot_be_declared():
    with pytest.raises(AssertionError):
        Needs("colours")


def test_one_who_asks_for_too_much_is_told_by_openais_exception(served, make_key):
    with pytest.raises(openai.PermissionDeniedError) as caught:
        served.client(api_key=make_key(role="viewer")).files.delete("file-1")
    assert caught.value.code == "missing_scope"
    assert json.loads(caught.value.response.text)["error"]["type"] == "invalid_request_error"
