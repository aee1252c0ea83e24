"""The official openai client against the engine's port: answers, streams, errors, aborts."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI

from engine.conftest import ENGINE_KEY
from tunesmith.engine.answers import Served
from tunesmith.engine.server import Server
from tunesmith.models.artifact import AdapterInfo

HELLO: list[Any] = [{"role": "user", "content": "Say héllo, 数学."}]


async def load(server: TestServer, name: str, info: AdapterInfo, **changed: str) -> tuple[int, Any]:
    body = {"name": name, "path": info.path, "content_hash": info.content_hash} | changed
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ENGINE_KEY}"}) as session:
        answer = await session.post(server.make_url("/adapters"), json=body)
        return answer.status, await answer.json()


async def test_a_chat_answer_is_whole(client: AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=12, temperature=0, logprobs=True, top_logprobs=2
    )
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert (answer.model, choice.message.role, choice.finish_reason) == (model, "assistant", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 12
    spelled = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert spelled.decode(errors="replace") == choice.message.content
    assert all(token.top_logprobs[0].logprob == pytest.approx(token.logprob) for token in choice.logprobs.content)


async def test_a_streamed_answer_is_the_same_text_in_whole_characters(client: AsyncOpenAI, model: str) -> None:
    for seed in range(6):
        asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 40, "temperature": 1.5, "seed": seed}
        whole = await client.chat.completions.create(**asked)
        chunks = [chunk async for chunk in await client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
        assert chunks[-1].choices == []
        assert chunks[-1].usage == whole.usage
        assert len({chunk.id for chunk in chunks}) == 1


async def test_streamed_log_probabilities_are_those_of_the_whole(client: AsyncOpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 20, "temperature": 0, "logprobs": True}
    whole = (await client.chat.completions.create(**asked)).choices[0].logprobs
    streamed = [
        token.token
        async for chunk in await client.chat.completions.create(**asked, stream=True)
        for token in (chunk.choices[0].logprobs.content or [] if chunk.choices[0].logprobs else [])
    ]
    assert whole is not None
    assert streamed == [token.token for token in whole.content or []]


async def test_several_choices_differ_and_come_streamed_too(client: AsyncOpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 8, "temperature": 1.5, "seed": 3, "n": 3}
    whole = await client.chat.completions.create(**asked)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    streamed = ["", "", ""]
    async for chunk in await client.chat.completions.create(**asked, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


async def test_a_stop_string_ends_both_kinds_of_answer(client: AsyncOpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 30, "temperature": 0}
    text = (await client.chat.completions.create(**asked)).choices[0].message.content or ""
    stop = text[8:11]
    cut = await client.chat.completions.create(**asked, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == text[: text.index(stop)]
    streamed = [c.choices[0] async for c in await client.chat.completions.create(**asked, stop=stop, stream=True)]
    assert "".join(choice.delta.content or "" for choice in streamed) == text[: text.index(stop)]
    assert streamed[-1].finish_reason == "stop"


async def test_token_ids_are_told_when_asked_for(client: AsyncOpenAI, model: str, served: Served) -> None:
    answer = await client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=5, temperature=0, extra_body={"return_token_ids": True}
    )
    body = answer.model_dump()
    assert len(body["choices"][0]["token_ids"]) == 5
    assert served.vocabulary.tokenizer.decode(body["prompt_token_ids"]).endswith("<|im_start|>assistant\n")
    assert served.vocabulary.decode(body["choices"][0]["token_ids"]) == answer.choices[0].message.content


async def test_the_older_endpoint_echoes_prompts_with_their_log_probabilities(client: AsyncOpenAI, model: str) -> None:
    answer = await client.completions.create(model=model, prompt=["Hello there", "Hi"], max_tokens=0, echo=True, logprobs=1)
    first, second = answer.choices
    assert first.text == "Hello there"
    assert first.logprobs is not None
    assert "".join(first.logprobs.tokens or []) == "Hello there"
    assert (first.logprobs.token_logprobs or [])[0] is None
    assert all(value < 0 for value in (first.logprobs.token_logprobs or [])[1:])
    assert second.text == "Hi"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0
    by_ids = await client.completions.create(model=model, prompt=[5, 6, 7], max_tokens=0, echo=True, logprobs=1)
    assert by_ids.choices[0].logprobs is not None
    assert len(by_ids.choices[0].logprobs.tokens or []) == 3


async def test_the_older_endpoint_streams(client: AsyncOpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "prompt": "Hello", "max_tokens": 10, "temperature": 0}
    whole = (await client.completions.create(**asked)).choices[0].text
    assert "".join([chunk.choices[0].text async for chunk in await client.completions.create(**asked, stream=True)]) == whole


async def test_an_adapter_is_served_by_its_name_beside_the_base(
    client: AsyncOpenAI, server: TestServer, model: str, make_adapter: Callable[..., AdapterInfo]
) -> None:
    name = "ft:tunesmith/tiny:local:my model:0123abcd"
    assert await load(server, name, make_adapter(1)) == (200, {"name": name, "content_hash": make_adapter(1).content_hash})
    assert (await load(server, name, make_adapter(1)))[0] == 200
    assert [item.id async for item in client.models.list()] == [model, name]

    async def ask(which: str) -> str | None:
        answer = await client.chat.completions.create(model=which, messages=HELLO, max_tokens=12, temperature=0)
        return answer.choices[0].message.content

    first_base, tuned, second_base = await asyncio.gather(ask(model), ask(name), ask(model))
    assert first_base == second_base != tuned
    assert (await load(server, name, make_adapter(2)))[1]["error"]["param"] == "name"
    assert (await load(server, "other", make_adapter(2), content_hash="0" * 64))[1]["error"]["param"] == "content_hash"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ENGINE_KEY}"}) as session:
        assert (await session.delete(server.make_url(f"/adapters/{name}"))).status == 200
    with pytest.raises(openai.NotFoundError):
        await ask(name)


@pytest.mark.parametrize(("change", "kind", "param", "code"), [
    ({"model": "nobody"}, openai.NotFoundError, "model", "model_not_found"),
    ({"store": True}, openai.BadRequestError, "store", "unsupported_parameter"),
    ({"extra_body": {"beam_width": 3}}, openai.BadRequestError, "beam_width", "unknown_parameter"),
    ({"max_tokens": 5000}, openai.BadRequestError, "messages", "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "a b " * 300}]}, openai.BadRequestError, "messages", "context_length_exceeded"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, openai.BadRequestError, "messages", "invalid_value"),
])
async def test_errors_are_openais(
    client: AsyncOpenAI, model: str, change: dict[str, Any], kind: type[openai.APIStatusError], param: str, code: str
) -> None:
    asked: dict[str, Any] = {"model": model, "messages": HELLO} | change
    for stream in (False, True):
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(**asked, stream=stream)
        assert (caught.value.param, caught.value.code) == (param, code)


async def test_a_wrong_key_and_an_unknown_path_are_refused_in_openais_shape(server: TestServer, model: str) -> None:
    async with AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            await stranger.models.list()
        assert caught.value.code == "invalid_api_key"
    async with AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key=ENGINE_KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.images.generate(model=model, prompt="x")
        assert missing.value.body is not None


async def test_many_requests_at_once_each_get_their_own_answer_also_when_one_fails(client: AsyncOpenAI, model: str) -> None:
    async def ask(number: int) -> str | None:
        messages: list[Any] = [{"role": "user", "content": f"Question {number}"}]
        tokens = 9_999 if number == 5 else 6
        answer = await client.chat.completions.create(model=model, messages=messages, max_tokens=tokens, temperature=0)
        return answer.choices[0].message.content

    together = await asyncio.gather(*(ask(number) for number in range(40)), return_exceptions=True)
    assert isinstance(together[5], openai.BadRequestError)
    assert [await ask(number) for number in (0, 17, 39)] == [together[0], together[17], together[39]]


async def test_a_client_that_leaves_ends_its_work(client: AsyncOpenAI, model: str, served: Served) -> None:
    stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True, temperature=1.5, n=8)
    async for _ in stream:
        break
    await stream.close()
    while served.core.stats().running or served.core.stats().waiting:
        await asyncio.sleep(0.01)
    answer = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=3, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_tool_calls_come_as_tool_calls(served: Served) -> None:
    """A random model calls no tools, so the answer's text is put in the model's place."""
    from tunesmith.engine.parsing import parse
    from tunesmith.engine.requests import ChatRequest
    from tunesmith.engine.responses import ChatStream, Collected, chat_choice
    from tunesmith.engine.sequence import Output

    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    request = parse(ChatRequest, {"model": "m", "messages": HELLO, "tools": tools})
    said = 'Sure.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    choice = chat_choice(request, served.vocabulary, 0, Collected(text=said, finish_reason="stop"))
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Sure."
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    stream = ChatStream(request, served.vocabulary, {}, 0)
    outputs = [Output(text=letter) for letter in said] + [Output(finish_reason="stop")]
    deltas = [chunk["choices"][0] for output in outputs for chunk in stream.chunks(output)]
    assert "".join(delta["delta"].get("content") or "" for delta in deltas) == "Sure."
    calls = [call for delta in deltas for call in delta["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0]
    assert calls[0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert deltas[-1]["finish_reason"] == "tool_calls"
    unasked = parse(ChatRequest, {"model": "m", "messages": HELLO, "tools": tools, "tool_choice": "none"})
    assert chat_choice(unasked, served.vocabulary, 0, Collected(text=said))["message"]["content"] == said


async def test_a_full_queue_tells_when_to_ask_again(served: Served) -> None:
    limits = served.core._scheduler.limits
    served.core._scheduler.limits = replace(limits, max_waiting=0, max_sequences=1)
    try:
        key = {"Authorization": f"Bearer {ENGINE_KEY}"}
        async with TestServer(Server(served).app()) as running, aiohttp.ClientSession(headers=key) as client:
            body = {"model": served.base.id, "prompt": "a", "n": 8, "max_tokens": 4}
            answer = await client.post(running.make_url("/v1/completions"), json=body)
            assert answer.status == 429
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.json())["error"]["code"] == "engine_overloaded"
    finally:
        served.core._scheduler.limits = limits
