"""Nothing but /health and / is answered without a key."""

import http.client

import openai
import pytest

from tunesmith.api.auth import bearer
from tunesmith.errors import Unauthorized

OPEN = {"/", "/health"}


def routes(app):
    found = [(path, method.upper()) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert len(found) > 15
    return found


def test_every_route_asks_for_a_key(served):
    from tunesmith.api.app import create_app

    for path, method in routes(create_app(served.desk.settings)):
        status, headers, body = served.request(method, path.replace("{", "").replace("}", ""), key=False)
        if path in OPEN:
            assert status == 200
        else:
            assert (path, status, body["error"]["code"]) == (path, 401, "invalid_api_key")
            assert headers["www-authenticate"] == "Bearer"


def test_health_says_ok_and_the_root_says_what_it_is(served):
    assert served.request("GET", "/health", key=False)[2]["status"] == "ok"
    assert served.request("GET", "/", key=False)[2]["name"] == "tunesmith"


def test_a_wrong_key_is_openais_authentication_error(served):
    with pytest.raises(openai.AuthenticationError) as caught:
        served.client(api_key="sk-wrong").models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    "values",
    [[], [""], ["Bearer"], ["Bearer "], ["Basic abc"], ["abc"], ["Bearer a", "Bearer b"], ["Bearer " + "x" * 10_000]],
)
def test_only_one_bearer_header_is_read(values):
    with pytest.raises(Unauthorized):
        bearer(values)


def test_a_key_elsewhere_than_in_the_header_is_no_key(served):
    for path, headers in ((f"/v1/files?api_key={served.key}", {}), ("/v1/files", {"x-api-key": served.key})):
        assert served.request("GET", path, headers=headers, key=False)[0] == 401


def test_odd_bytes_in_the_header_are_refused_and_not_a_crash(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.putrequest("GET", "/v1/files")
    connection.putheader("authorization", b"Bearer \xff\xfe\xe9")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()
