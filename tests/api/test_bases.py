"""Bases are added and taken away while the server runs; a client names what is on the shelf, never a path."""

import json
import time
import urllib.request

import openai
import pytest
from serving.test_memory import make_huge_base

from tunesmith.models.shelf import add
from tunesmith.paths import TINY

JSON = {"content-type": "application/json"}
HELLO = [{"role": "user", "content": "hi"}]


def call(served, method, path, body=None):
    status, _, answer = served.request(method, f"/v1/bases{path}", json.dumps(body) if body else None, JSON)
    return status, answer


def engines(served, base):
    return [each for each in served.request("GET", "/health", key=False)[2]["engines"] if each["base"] == base]


def test_a_base_is_added_answers_and_is_taken_away(served, client):
    add(TINY, served.desk.settings.dirs.models, name="second")
    status, shown = call(served, "POST", "", {"base": "second"})
    assert (status, shown["id"]) == (200, "second")
    assert engines(served, "second")[0]["status"] in {"down", "loading"}, "it starts without being asked"
    while (state := engines(served, "second")[0])["status"] != "ready":
        time.sleep(0.1)
    assert (state["progress"], state["running"], state["waiting"]) == (1.0, 0, 0)
    assert client.chat.completions.create(model="second", messages=HELLO, max_tokens=2).model == "second"
    with urllib.request.urlopen(urllib.request.Request(
        f"http://127.0.0.1:{served.port}/metrics", headers={"authorization": f"Bearer {served.key}"}
    )) as page:
        assert b'generated_tokens_total{base="second",quantization="none",replica="0"} 2.0' in page.read()
    listed = {base["id"]: len(base["engines"]) for base in call(served, "GET", "")[1]["data"]}
    assert listed["second"] == 1
    assert call(served, "DELETE", "/second") == (200, {"id": "second", "object": "base", "deleted": True})
    assert engines(served, "second") == []
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="second", messages=HELLO)
    assert call(served, "DELETE", "/second")[0] == 404
    assert call(served, "POST", "", {"base": "second"})[0] == 200
    assert "second" in [model.id for model in client.models.list()]
    call(served, "DELETE", "/second")


def test_the_default_base_may_go_and_come_back(served, client):
    assert call(served, "DELETE", "/tunesmith%2Ftiny")[0] == 200
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="tunesmith/tiny", messages=HELLO)
    assert call(served, "POST", "", {"base": "tunesmith/tiny"})[0] == 200
    assert client.models.retrieve("tunesmith/tiny").id == "tunesmith/tiny"


def test_what_does_not_fit_is_refused_with_the_figures(served, tmp_path):
    add(make_huge_base(tmp_path / "huge"), served.desk.settings.dirs.models, name="huge")
    status, answer = call(served, "POST", "", {"base": "huge"})
    assert (status, answer["error"]["code"]) == (503, "does_not_fit")
    assert "it needs about 18" in answer["error"]["message"]
    assert "GiB are free" in answer["error"]["message"]


@pytest.mark.parametrize("name", ["nobody/knows", "/etc", "../..", str(TINY)])
def test_only_what_is_on_the_shelf_can_be_named(served, name):
    status, answer = call(served, "POST", "", {"base": name})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_bases_need_a_key(served):
    assert served.request("GET", "/metrics", key=False)[0] == 401
    assert served.request("POST", "/v1/bases", json.dumps({"base": "tunesmith/tiny"}), JSON, key=False)[0] == 401
