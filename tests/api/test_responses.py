"""Responses with the official client: whole, streamed, with tools, going on from one another, in the background, stored."""

import json
import time

import openai
import pytest
from openai.types.responses import Response

from api.conftest import serve
from tunesmith.api.asking import Record
from tunesmith.db import keys, projects, stored
from tunesmith.db.migrate import open_database
from tunesmith.schemas.response_items import to_items
from tunesmith.schemas.responses import begin
from tunesmith.settings import Settings

ASKED = {"model": "tunesmith/tiny", "input": "Repeat: river piano", "temperature": 0, "max_output_tokens": 16}
LONG = ASKED | {"temperature": 2, "max_output_tokens": 3000}
TOOL = {
    "type": "function", "name": "find", "strict": True,
    "parameters": {"type": "object", "properties": {"n": {"enum": [1]}}, "required": ["n"], "additionalProperties": False},
}
FORMAT = {"format": {"type": "json_schema", "name": "choice", "schema": {"enum": ["river", "piano"]}, "strict": True}}


@pytest.fixture
def served(talking):
    return talking


def ended(client, response):
    """The response when it has come to its end."""
    until = time.monotonic() + 60
    while response.status in ("queued", "in_progress") and time.monotonic() < until:
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


def test_a_response_says_what_the_chat_says(client):
    chat = client.chat.completions.create(
        model="tunesmith/tiny", messages=[{"role": "user", "content": "Repeat: river piano"}], temperature=0, max_tokens=16
    )
    response = client.responses.create(**ASKED, metadata={"a": "b"})
    Response.model_validate(response.model_dump(), strict=True)
    assert response.output_text == chat.choices[0].message.content
    assert (response.usage.input_tokens, response.usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    found = client.responses.retrieve(response.id)
    assert found.model_dump() == response.model_dump()
    (item,) = client.responses.input_items.list(response.id)
    assert (item.role, item.content[0].text) == ("user", "Repeat: river piano")


def test_a_stream_ends_with_the_same_response_and_is_kept(client):
    whole = client.responses.create(**ASKED)
    with client.responses.stream(**ASKED) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.type for event in events[:4]] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == whole.output_text
    assert client.responses.retrieve(final.id).output_text == whole.output_text


def test_a_cut_answer_is_incomplete(client):
    response = client.responses.create(**ASKED, extra_body={"ignore_eos": True})
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_an_answer_keeps_to_a_schema(client):
    assert json.loads(client.responses.create(**ASKED, text=FORMAT).output_text) in ("river", "piano")


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_is_an_item_and_its_output_goes_on(client, stream):
    asked = ASKED | {"tools": [TOOL], "tool_choice": "required", "max_output_tokens": 64}
    if stream:
        with client.responses.stream(**asked) as events:
            response = events.get_final_response()
    else:
        response = client.responses.create(**asked)
    call = response.output[-1]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "find", {"n": 1})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    after = client.responses.create(**ASKED | {"input": [output], "tools": [TOOL]}, previous_response_id=response.id)
    assert after.status in ("completed", "incomplete")


def test_a_response_goes_on_from_another_with_all_that_was_said(client):
    first = client.responses.create(**ASKED, instructions="Be brief.")
    second = client.responses.create(**ASKED | {"input": "Again."}, previous_response_id=first.id)
    said = [
        {"role": "user", "content": "Repeat: river piano"}, {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "Again."},
    ]
    assert second.usage.input_tokens == client.responses.input_tokens.count(model="tunesmith/tiny", input=said).input_tokens
    assert second.output_text == client.responses.create(**ASKED | {"input": said}).output_text
    for name in ("resp_nobody", "x" * 500):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**ASKED, previous_response_id=name)
        assert caught.value.code == "previous_response_not_found"


def test_in_the_background_it_is_found_at_once_and_ends_by_itself(client):
    response = client.responses.create(**ASKED, background=True)
    assert response.status == "queued"
    final = ended(client, response)
    assert (final.status, final.output_text) == ("completed", client.responses.create(**ASKED).output_text)
    assert client.responses.cancel(response.id).status == "completed"


def test_a_response_in_the_background_can_be_cancelled_and_followed(client):
    response = client.responses.create(**LONG, background=True)
    with client.responses.retrieve(response.id, stream=True) as events:
        assert next(iter(events)).type == "response.created"
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"
    rest = list(client.responses.retrieve(response.id, stream=True, starting_after=0))
    assert [event.sequence_number for event in rest] == list(range(1, len(rest) + 1))
    assert rest[0].type == "response.queued"


def test_a_stream_in_the_background_outlives_its_client(client):
    with client.responses.create(**ASKED, background=True, stream=True) as stream:
        first = next(iter(stream))
    final = ended(client, client.responses.retrieve(first.response.id))
    assert final.status == "completed"
    rest = list(client.responses.retrieve(final.id, stream=True, starting_after=first.sequence_number))
    assert (rest[0].sequence_number, rest[-1].type) == (first.sequence_number + 1, "response.completed")


def test_what_fails_in_the_background_says_so(client):
    response = client.responses.create(**ASKED | {"input": "x " * 5000}, background=True)
    final = ended(client, response)
    assert (final.status, final.error.code) == ("failed", "invalid_prompt")


def test_deleted_responses_are_gone_and_open_ones_end(client):
    for response in (client.responses.create(**ASKED), client.responses.create(**LONG, background=True)):
        client.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response.id)
    assert client.responses.create(**ASKED, store=False).id
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(client.responses.create(**ASKED, store=False).id)


def test_another_project_finds_nothing(served, client):
    response = client.responses.create(**ASKED, background=True)
    with served.desk.database.write() as connection:
        _, text = keys.create(connection, "theirs", project=projects.create(connection, "responses").id)
    theirs = served.client(api_key=text)
    for ask in (theirs.responses.retrieve, theirs.responses.delete, theirs.responses.cancel, theirs.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask(response.id)
    with pytest.raises(openai.BadRequestError):
        theirs.responses.create(**ASKED, previous_response_id=response.id)
    assert ended(client, response).status == "completed"


def test_a_conversation_that_is_too_long_is_refused_or_cut_at_its_beginning(client):
    said = [{"role": "user", "content": "x " * 1500}] * 4 + [{"role": "user", "content": "Repeat: river piano"}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ASKED | {"input": said})
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    response = client.responses.create(**ASKED | {"input": said}, truncation="auto")
    assert response.status in ("completed", "incomplete")
    assert response.usage.input_tokens < 5000


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"temperature": 3}, "temperature"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}, "text.format"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_what_is_refused_is_named_as_the_client_named_it(served, fields, param):
    status, _, answer = served.request("POST", "/v1/responses", json.dumps(ASKED | fields))
    assert (status, answer["error"]["param"]) == (400, param)


def test_half_a_character_is_no_json(served):
    status, _, answer = served.request("POST", "/v1/responses", rb'{"model": "tunesmith/tiny", "input": "\ud800"}')
    assert (status, answer["error"]["code"]) == (400, "invalid_json")


def test_what_a_kill_left_open_is_done_again_or_said_to_be_lost(tmp_path, talking, monkeypatch):
    """On a server whose engine is elsewhere: the other server of these tests."""
    monkeypatch.setenv("ELSEWHERE", talking.key)
    elsewhere = {"engine": "openai", "upstream": f"http://127.0.0.1:{talking.port}/v1", "upstream_key_env": "ELSEWHERE"}
    settings = Settings(data_dir=tmp_path, **elsewhere)
    database = open_database(settings.dirs.make().database)
    with database.write() as connection:
        key, text = keys.create(connection, "mine")
        gone = keys.revoke(connection, keys.create(connection, "gone")[0].id)
        body = ASKED | {"background": True}
        rows = []
        for owner in (key, gone):
            record = Record(owner.project, owner.id, body, to_items(body["input"]), begin(body, body["model"], 7))
            rows.append(record.row())
        stored.add_all(connection, rows)
    database.close()
    with serve(settings) as served:
        client = served.client(api_key=text)
        done, lost = (ended(client, client.responses.retrieve(row.id)) for row in rows)
        assert (done.status, done.output_text) == ("completed", client.responses.create(**ASKED).output_text)
        assert (lost.status, "restarted" in lost.error.message) == ("failed", True)
