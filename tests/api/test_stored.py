"""A chat that is asked with `store` is found again with its question, whole or streamed, by its own project only."""

import json

import openai
import pytest
from openai.types.chat import ChatCompletion

from tunesmith.db import keys, projects

HELLO = [{"role": "user", "content": "Repeat: river piano"}]
ASKED = {"model": "tunesmith/tiny", "messages": HELLO, "temperature": 0, "max_tokens": 8}
FIND = {"name": "find", "parameters": {"type": "object", "properties": {"n": {"enum": [1]}}, "required": ["n"]}}


@pytest.fixture
def served(talking):
    return talking


def test_what_was_answered_is_found_at_once_with_what_was_asked(client):
    answer = client.chat.completions.create(**ASKED, store=True, metadata={"case": "whole", "run": "1"}, seed=5)
    found = client.chat.completions.retrieve(answer.id)
    ChatCompletion.model_validate(found.model_dump(exclude_none=True), strict=True)
    assert found.choices == answer.choices
    assert found.usage == answer.usage
    assert (found.metadata, found.temperature, found.seed) == ({"case": "whole", "run": "1"}, 0, 5)
    (message,) = client.chat.completions.messages.list(answer.id)
    assert (message.id, message.role, message.content) == (f"{answer.id}-0", "user", "Repeat: river piano")


def test_a_stream_is_kept_as_the_answer_that_it_is(client):
    whole = client.chat.completions.create(**ASKED)
    chunks = list(client.chat.completions.create(**ASKED, stream=True, store=True, metadata={"case": "stream"}))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    (found,) = client.chat.completions.list(metadata={"case": "stream"}).data
    assert found.id == chunks[0].id
    assert found.choices == whole.choices
    assert found.usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_that_was_left_is_not_kept(served, client):
    with client.chat.completions.create(
        **ASKED | {"max_tokens": 2000, "temperature": 2}, stream=True, store=True, metadata={"case": "left"}
    ) as stream:
        next(iter(stream))
    assert client.chat.completions.list(metadata={"case": "left"}).data == []


def test_without_store_nothing_is_kept(client):
    answer = client.chat.completions.create(**ASKED, store=False)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(answer.id)


def test_lists_are_paged_ordered_and_filtered(client):
    made = [client.chat.completions.create(**ASKED, store=True, metadata={"case": "list", "n": str(n)}).id for n in range(3)]
    assert [item.id for item in client.chat.completions.list(metadata={"case": "list"}, limit=2)] == made
    assert [item.id for item in client.chat.completions.list(metadata={"case": "list"}, order="desc")] == made[::-1]
    assert [item.id for item in client.chat.completions.list(metadata={"case": "list", "n": "1"})] == [made[1]]
    assert client.chat.completions.list(metadata={"case": "list"}, model="another").data == []
    page = client.chat.completions.list(metadata={"case": "list"}, after=made[0], limit=1)
    assert ([item.id for item in page.data], page.has_more) == ([made[1]], True)


def test_labels_are_changed_and_answers_deleted(client):
    answer = client.chat.completions.create(**ASKED, store=True, metadata={"case": "labels"})
    assert client.chat.completions.update(answer.id, metadata={"rated": "good"}).metadata == {"rated": "good"}
    assert [item.id for item in client.chat.completions.list(metadata={"rated": "good"})] == [answer.id]
    gone = client.chat.completions.delete(answer.id)
    assert (gone.id, gone.deleted, gone.object) == (answer.id, True, "chat.completion.deleted")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.messages.list(answer.id)


def test_large_questions_are_kept_too_and_leave_no_blob_behind(served, client):
    blobs = served.desk.settings.dirs.blobs
    before = sorted(blobs.rglob("*"))
    parts = [{"type": "text", "text": "river "}, {"type": "text", "text": "piano"}]
    asked = ASKED | {"messages": [{"role": "user", "content": parts}], "user": "u" * 70_000}
    answer = client.chat.completions.create(**asked, store=True)
    (message,) = client.chat.completions.messages.list(answer.id)
    assert (message.content, [part.text for part in message.content_parts]) == ("river piano", ["river ", "piano"])
    assert [path for path in sorted(blobs.rglob("*")) if path.is_file() and path not in before]
    client.chat.completions.delete(answer.id)
    assert [path for path in sorted(blobs.rglob("*")) if path.is_file()] == [path for path in before if path.is_file()]


def test_another_project_finds_nothing(served, client):
    answer = client.chat.completions.create(**ASKED, store=True, metadata={"case": "foreign"})
    with served.desk.database.write() as connection:
        theirs = projects.create(connection, "stored-elsewhere")
        _, text = keys.create(connection, "theirs", project=theirs.id)
    theirs = served.client(api_key=text)
    assert theirs.chat.completions.list().data == []
    for ask in (theirs.chat.completions.retrieve, theirs.chat.completions.delete, theirs.chat.completions.messages.list):
        with pytest.raises(openai.NotFoundError):
            ask(answer.id)
    with pytest.raises(openai.NotFoundError):
        theirs.chat.completions.update(answer.id, metadata={})
    assert client.chat.completions.retrieve(answer.id).metadata == {"case": "foreign"}


def test_scripts_of_2023_that_send_functions_run(client):
    asked = ASKED | {"functions": [FIND], "function_call": {"name": "find"}, "max_tokens": 64}
    whole = client.chat.completions.create(**asked, store=True).choices[0]
    assert (whole.message.function_call.name, json.loads(whole.message.function_call.arguments)) == ("find", {"n": 1})
    assert whole.message.tool_calls is None
    chunks = list(client.chat.completions.create(**asked, stream=True))
    calls = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices and chunk.choices[0].delta.function_call]
    assert "".join(call.arguments or "" for call in calls) == whole.message.function_call.arguments


def test_a_tier_is_told_back(client):
    assert client.chat.completions.create(**ASKED, service_tier="auto").service_tier == "default"
    chunks = client.chat.completions.create(**ASKED, service_tier="flex", stream=True)
    assert {chunk.service_tier for chunk in chunks} == {"flex"}
