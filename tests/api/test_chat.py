"""Chat goes through to the engine and back: whole, streamed, refused or abandoned."""

import http.client
import json
import select
import socket
import time

import openai
import pytest

HELLO = [{"role": "user", "content": "Repeat: river piano"}]


@pytest.fixture
def served(talking):
    return talking


def test_the_base_answers_whole_and_in_pieces_alike(client):
    whole = client.chat.completions.create(model="tunesmith/tiny", messages=HELLO, temperature=0, max_tokens=12)
    assert whole.object == "chat.completion"
    assert whole.model == "tunesmith/tiny"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = client.chat.completions.create(
        model="tunesmith/tiny", messages=HELLO, temperature=0, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_completions_continue_a_text(client):
    answer = client.completions.create(model="tunesmith/tiny", prompt="one two", max_tokens=4, temperature=0)
    assert answer.object == "text_completion"
    assert answer.usage.completion_tokens <= 4


def test_an_unknown_model_is_a_404_that_names_it(client):
    for model in ("nobody/knows", "ft:tunesmith/tiny:local::12345678", "/etc", "..", "x" * 10_000, "a\x00b"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=model, messages=HELLO)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"5", None),
        (b"[" * 50_000, None),
        (b'{"messages": []}', "model"),
        (b'{"model": 7, "messages": []}', "model"),
        (b'{"model": "tunesmith/tiny"}', "messages"),
        (b'{"model": "tunesmith/tiny", "messages": [{"role": "user", "content": "hi"}], "no_such_field": 1}', "no_such_field"),
        (b'{"model": "tunesmith/tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": -1}', "temperature"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(served, body, param):
    status, headers, answer = served.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    assert (status, answer["error"]["param"]) == (400, param)
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"].startswith("req_")


class EngineConnection(http.client.HTTPConnection):
    """To the engine itself, past the desk."""

    def __init__(self, path):
        super().__init__("engine")
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def num_running(served):
    connection = EngineConnection(served.desk.router._upstreams[("tunesmith/tiny", "none")].upstreams[0]._process.socket)
    connection.request("GET", "/health")
    found = json.loads(connection.getresponse().read())["running"]
    connection.close()
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_engines_work(served, client, stream):
    client.chat.completions.create(model="tunesmith/tiny", messages=HELLO, max_tokens=1)  # the engine runs
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    body = {"model": "tunesmith/tiny", "messages": HELLO, "max_tokens": 4000, "temperature": 2, "stream": stream}
    headers = {"authorization": f"Bearer {served.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    while not num_running(served) and not select.select([connection.sock], [], [], 0.01)[0]:
        pass  # it works on it, or has answered already
    connection.close()
    while num_running(served):
        time.sleep(0.05)


def test_embeddings_and_tokens_come_through_the_desk_and_need_its_key(served, client):
    found = client.embeddings.create(model="tunesmith/tiny", input=["river", "piano"])
    assert [len(item.embedding) for item in found.data] == [256, 256]
    assert found.model == "tunesmith/tiny"
    body = json.dumps({"model": "tunesmith/tiny", "prompt": "river piano"})
    _, _, found = served.request("POST", "/tokenize", body)
    back = json.dumps({"model": "tunesmith/tiny", "tokens": found["tokens"]})
    assert served.request("POST", "/detokenize", back)[2] == {"prompt": "river piano"}
    status, _, answer = served.request("POST", "/tokenize", body, {"authorization": "Bearer wrong"})
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
