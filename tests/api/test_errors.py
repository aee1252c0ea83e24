"""Every error has OpenAI's body, whoever raises it."""

import http.client
import json
from contextlib import suppress

import openai
import pytest
import structlog

from tunesmith.api import logs
from tunesmith.api.errors import field_path

JSON = {"content-type": "application/json"}


def check(answer, status, code, param=None):
    found, headers, body = answer
    assert found == status
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert headers["x-request-id"].startswith("req_")


def test_unknown_paths_and_methods_have_the_body(served):
    check(served.request("GET", "/v1/nothing"), 404, "unknown_url")
    check(served.request("GET", "/v1/files/"), 404, "unknown_url")
    check(served.request("PUT", "/v1/files"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"[]", "invalid_value", None),
        (b"{}", "missing_required_parameter", "model"),
        (b'{"model": "tunesmith/tiny"}', "missing_required_parameter", "training_file"),
        (b'{"model": "tunesmith/tiny", "training_file": "x", "owner": 1}', "unknown_parameter", "owner"),
        (b'{"model": "tunesmith/tiny", "training_file": "x", "\\ud800": 1}', "invalid_value", None),
        (b'{"model": "tunesmith/tiny", "training_file": "x"}', "file_not_found", "training_file"),
        (b'{"model": "/etc", "training_file": "x"}', "model_not_found", "model"),
        (b'{"model": "..", "training_file": "x"}', "model_not_found", "model"),
        (b"[" * 100_000, "invalid_json", None),
    ],
)
def test_a_body_that_is_wrong_is_a_400_with_its_field(served, body, code, param):
    answer = served.request("POST", "/v1/fine_tuning/jobs", body, JSON)
    if body.startswith(b"[["):
        assert answer[0] == 400
        assert set(answer[2]["error"]) == {"message", "type", "param", "code"}
    else:
        check(answer, 400, code, param)


def test_all_the_branches_of_a_type_are_named_once(served):
    body = {"model": "tunesmith/tiny", "training_file": "x", "hyperparameters": {"n_epochs": 51}}
    found = served.request("POST", "/v1/fine_tuning/jobs", json.dumps(body), JSON)
    check(found, 400, "invalid_value", "hyperparameters.n_epochs")
    assert "'auto'" in found[2]["error"]["message"]
    assert "50" in found[2]["error"]["message"]


def test_limits_of_lists_are_checked(served):
    check(served.request("GET", "/v1/files?limit=0"), 400, "invalid_value", "limit")
    check(served.request("GET", "/v1/files?limit=x"), 400, "invalid_value", "limit")
    check(served.request("GET", "/v1/files?order=up"), 400, "invalid_value", "order")
    check(served.request("GET", "/v1/files?after=nobody"), 400, "invalid_request", "after")


def test_a_body_that_is_too_large_is_refused_with_and_without_a_length(served):
    check(served.request("POST", "/v1/fine_tuning/jobs", b" " * (17 * 1024 * 1024), JSON), 413, "request_too_large")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    chunks = (b" " * 65_536 for _ in range(300))
    headers = {"authorization": f"Bearer {served.key}", **JSON}
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
        connection.request("POST", "/v1/fine_tuning/jobs", chunks, headers, encode_chunked=True)
    reply = connection.getresponse()
    assert reply.status == 413
    assert json.loads(reply.read())["error"]["code"] == "request_too_large"
    connection.close()


def test_an_unexpected_error_is_a_500_that_names_the_request_and_keeps_the_server(served, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("secret detail")

    logs.configure()
    with monkeypatch.context() as patch:
        patch.setattr("tunesmith.db.files.list_page", broken)
        answer = served.request("GET", "/v1/files")
    structlog.reset_defaults()
    check(answer, 500, "internal_error")
    assert answer[2]["error"]["type"] == "server_error"
    assert answer[1]["x-request-id"] in answer[2]["error"]["message"]
    assert "secret" not in answer[2]["error"]["message"]
    assert capsys.readouterr().err.count("ZeroDivisionError: secret detail") == 1
    assert served.request("GET", "/v1/files")[0] == 200


def test_the_official_client_reads_code_param_and_request_id(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.fine_tuning.jobs.retrieve("ftjob-nobody")
    assert caught.value.param == "fine_tuning_job_id"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("req_")


def test_a_location_becomes_a_field_path():
    assert field_path(("body", "method", "supervised", "n_epochs", "constrained-int")) == "method.supervised.n_epochs"
    assert field_path(("query", "limit")) == "limit"
    assert field_path(("body", "hyperparameters", "n_epochs", "literal['auto']")) == "hyperparameters.n_epochs"


def test_the_branch_of_a_union_is_no_part_of_a_field_path():
    body = {"grader": {"type": "score_model", "range": [0, "x"], "input": []}}
    assert field_path(("body", "grader", "score_model", "range", 1), body) == "grader.range.1"
    assert field_path(("body", "grader", "score_model", "model"), body, is_missing=True) == "grader.model"
    assert field_path(("body", "grader", "score_model"), body) == "grader"
