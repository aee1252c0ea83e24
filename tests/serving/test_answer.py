"""Events are passed on whole, with the client's name of the model, wherever the bytes were cut on the way."""

import json

from aiohttp import web
from aiohttp.test_utils import TestServer

from tunesmith.serving.answer import Answer, Events, Told
from tunesmith.serving.wire import Wire

ENGINE, NAME = "ad-0123456789abcdef", "ft:tunesmith/tiny:local:münchen:0123abcd"
STREAM = (
    b": a comment\n\n"
    + b'data: {"id": "1", "model": "ad-0123456789abcdef", "choices": '
    + b'[{"delta": {"content": "\\"model\\": \\"ad-0123456789abcdef\\""}}]}\n\n'
    + 'data: {"model": "ad-0123456789abcdef", "choices": [{"delta": {"content": "größer 鋼"}}]}\r\n\r\n'.encode()
    + b"data: [DONE]\n\n"
)


def test_every_event_is_whole_and_renamed_wherever_the_stream_is_cut() -> None:
    wholes = set()
    for size in range(1, len(STREAM)):
        events = Events()
        found = [event for at in range(0, len(STREAM), size) for event in events.feed(STREAM[at:at + size])]
        assert events.end() == []
        wholes.add(tuple(map(Told((ENGINE, NAME)).event, found)))
    assert len(wholes) == 1
    comment, first, second, done = wholes.pop()
    assert (comment, done) == (b": a comment\n\n", b"data: [DONE]\n\n")
    told = [json.loads(event.removeprefix(b"data: ")) for event in (first, second)]
    assert [each["model"] for each in told] == [NAME, NAME]
    assert told[0]["choices"][0]["delta"]["content"] == '"model": "ad-0123456789abcdef"', "what the model says is not touched"
    assert told[1]["choices"][0]["delta"]["content"] == "größer 鋼"


def test_what_a_model_says_is_never_taken_for_the_object() -> None:
    content = f'{{"model": "{ENGINE}", "usage": null, "error": 1}}'
    said = {"choices": [{"delta": {"content": content}}], "model": ENGINE, "usage": None}
    for separators in ((", ", ": "), (",", ":")):
        told = Told((ENGINE, NAME))
        told.hides_usage = True
        event = told.event(b"data: " + json.dumps(said, separators=separators).encode() + b"\n\n")
        assert json.loads(event[6:]) == {"choices": said["choices"], "model": NAME}


def test_a_last_event_without_its_empty_line_is_not_lost() -> None:
    events = Events()
    assert events.feed(b"data: [DONE]\n") == []
    assert events.end() == [b"data: [DONE]\n\n"]


def test_an_error_speaks_of_the_clients_model_and_has_openais_fields() -> None:
    told = {"error": {"message": f"The model `{ENGINE}` does not exist.", "type": "NotFoundError", "code": 404}}
    error = json.loads(Told((ENGINE, NAME)).whole(json.dumps(told).encode()))["error"]
    assert error == {"message": f"The model `{NAME}` does not exist.", "type": "NotFoundError", "param": None, "code": None}


def test_usage_that_the_client_did_not_ask_for_is_read_and_hidden() -> None:
    told = Told((ENGINE, NAME))
    told.hides_usage = True
    assert json.loads(told.event(b'data: {"choices": [{"delta": {}}], "usage": null}\n\n')[6:]) == {"choices": [{"delta": {}}]}
    assert told.event(b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n') == b""
    assert (told.usage, told.num_events) == ({"prompt_tokens": 3}, 2)


async def test_when_to_ask_again_reaches_the_client_and_no_other_header_of_the_engine() -> None:
    async def full(request: web.Request) -> web.Response:
        return web.json_response({"error": {}}, status=429, headers={"Retry-After": "3", "X-Engine": "secret"})

    app = web.Application()
    app.router.add_get("/", full)
    async with TestServer(app) as server:
        wire = Wire(str(server.make_url("")), None, "")
        answer = Answer(await wire.ask("GET", "/"))
        assert answer.headers == {"Retry-After": "3"}
        await answer.begin()
        await wire.close()
