"""What can be asked of the engine, asked with the official openai client: forms, tools, embeddings, penalties, identity."""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import openai
import pytest
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI
from peft import PromptTuningConfig
from pydantic import BaseModel

from engine.conftest import ENGINE_KEY
from engine.engines import save_peft
from tunesmith.engine.answers import Served
from tunesmith.models.artifact import AdapterInfo

HELLO: list[Any] = [{"role": "user", "content": "Say héllo, 数学."}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "ages": {"type": "array", "items": {"enum": [1, 22]}, "maxItems": 2},
    },
    "required": ["name", "ages"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "add", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"],
        "additionalProperties": False,
    }}},
    {"type": "function", "function": {"name": "go"}},
]


async def post(server: TestServer, path: str, /, **body: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ENGINE_KEY}"}) as session:
        answer = await session.post(server.make_url(path), json=body)
        return answer.status, await answer.json()


# -- forms --------------------------------------------------------------------------------------------------------------


async def test_an_answer_keeps_to_its_schema_however_it_is_drawn(client: AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.create(
        model=model, messages=HELLO, response_format=FORMAT, temperature=1.5, seed=1, n=8, max_tokens=100
    )
    texts = [choice.message.content or "" for choice in answer.choices]
    assert len(set(texts)) > 1
    for choice, text in zip(answer.choices, texts, strict=True):
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(text), SCHEMA)


async def test_a_streamed_form_is_the_same_and_the_openai_packages_models_are_taken(client: AsyncOpenAI, model: str) -> None:
    class Person(BaseModel):
        age: bool

    parsed = await client.chat.completions.parse(model=model, messages=HELLO, response_format=Person, max_tokens=50, seed=3)
    assert parsed.choices[0].message.parsed is not None
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "response_format": FORMAT, "seed": 5, "max_tokens": 100}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(**asked, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == whole.choices[0].message.content


async def test_a_form_cut_by_the_limit_is_a_beginning(client: AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.create(
        model=model, messages=HELLO, response_format={"type": "json_object"}, max_tokens=3, temperature=0
    )
    assert answer.choices[0].finish_reason == "length"
    assert (answer.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize("structured", [{"choice": ["yes", "no"]}, {"regex": "(yes|no)"}, {"grammar": 'start: "yes" | "no"'}])
async def test_both_endpoints_take_vllms_forms(client: AsyncOpenAI, model: str, structured: dict[str, Any]) -> None:
    extra = {"structured_outputs": structured}
    chat = await client.chat.completions.create(model=model, messages=HELLO, n=4, extra_body=extra)
    text = await client.completions.create(model=model, prompt=["Well?", "Or?"], n=2, extra_body=extra)
    assert {choice.message.content for choice in chat.choices} <= {"yes", "no"}
    assert {choice.text for choice in text.choices} <= {"yes", "no"}


async def test_a_form_that_cannot_be_held_is_refused_and_others_go_on(client: AsyncOpenAI, model: str) -> None:
    wrong: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=model, messages=HELLO, response_format=wrong)
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_value")
    assert "uniqueItems" in caught.value.message
    good = await client.chat.completions.create(model=model, messages=HELLO, response_format=FORMAT, max_tokens=100)
    jsonschema.validate(json.loads(good.choices[0].message.content or ""), SCHEMA)


# -- tools --------------------------------------------------------------------------------------------------------------


async def test_required_tools_are_called_with_arguments_of_their_schemas(client: AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.create(
        model=model, messages=HELLO, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=1.5, seed=1, n=6
    )
    names = set()
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        call, = choice.message.tool_calls or []
        assert call.type == "function"
        names.add(call.function.name)
        assert set(json.loads(call.function.arguments)) == ({"a"} if call.function.name == "add" else set())
    assert names <= {"add", "go"}


async def test_a_named_tool_is_called_and_the_answer_stops_as_openais_does(client: AsyncOpenAI, model: str) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "tools": TOOLS, "tool_choice": named, "seed": 2}
    choice = (await client.chat.completions.create(**asked)).choices[0]
    assert choice.finish_reason == "stop"
    assert [call.function.name for call in choice.message.tool_calls or [] if call.type == "function"] == ["add"]
    streamed = [chunk.choices[0] async for chunk in await client.chat.completions.create(**asked, stream=True)]
    calls = [call.function for part in streamed for call in part.delta.tool_calls or [] if call.function is not None]
    assert [(call.name, call.arguments) for call in calls] == [
        (call.function.name, call.function.arguments) for call in choice.message.tool_calls or [] if call.type == "function"
    ]
    assert streamed[-1].finish_reason == "stop"


async def test_with_tools_a_format_leaves_the_choice_between_a_call_and_an_answer(client: AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.create(
        model=model, messages=HELLO, tools=TOOLS, response_format=FORMAT, parallel_tool_calls=False, temperature=2, seed=1, n=16,
        max_tokens=100,
    )
    for choice in answer.choices:
        if choice.finish_reason == "tool_calls":
            assert choice.message.tool_calls
        else:
            jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)


# -- sampling -----------------------------------------------------------------------------------------------------------


async def test_biases_and_penalties_change_what_is_said(client: AsyncOpenAI, model: str, served: Served) -> None:
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 12, "temperature": 0}
    forced = served.vocabulary.tokenizer.encode("x")[0]
    answer = await client.chat.completions.create(**asked, logit_bias={str(forced): 100})
    assert answer.choices[0].message.content == "x" * 12
    plain = (await client.chat.completions.create(**asked)).choices[0].message.content
    changed = await client.chat.completions.create(
        **asked, frequency_penalty=2, presence_penalty=2, extra_body={"repetition_penalty": 5}
    )
    assert changed.choices[0].message.content != plain
    alone = await client.chat.completions.create(**asked, extra_body={"top_k": 1, "min_p": 1.0, "repetition_penalty": 1.0})
    assert alone.choices[0].message.content == plain
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**asked, logit_bias={"99999": 1})
    assert caught.value.param == "logit_bias"


async def test_an_end_token_can_be_ignored_or_put_off(client: AsyncOpenAI, model: str, served: Served) -> None:
    end = str(next(iter(served.end_tokens)))
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 7, "temperature": 0, "logit_bias": {end: 100}}

    async def count(**extra: Any) -> int:
        answer = await client.chat.completions.create(**asked, extra_body=extra)
        assert answer.usage is not None
        return answer.usage.completion_tokens

    assert await count() == 1
    assert await count(min_tokens=4) == 5
    assert await count(ignore_eos=True) == 7


async def test_a_deadline_ends_a_request_with_an_error(client: AsyncOpenAI, model: str) -> None:
    extra = {"deadline_seconds": 1e-6, "ignore_eos": True, "priority": "batch"}
    with pytest.raises(openai.APIStatusError) as caught:
        await client.completions.create(model=model, prompt="x", max_tokens=200, extra_body=extra)
    assert caught.value.code == "deadline_exceeded"


# -- identity -----------------------------------------------------------------------------------------------------------


async def test_usage_tells_what_the_cache_gave_and_a_salt_keeps_tenants_apart(client: AsyncOpenAI, model: str) -> None:
    prompt = "A long prompt, the same for all. " * 8

    async def cached(**extra: Any) -> int:
        answer = await client.completions.create(model=model, prompt=prompt, max_tokens=2, temperature=0, extra_body=extra)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    assert await cached(cache_salt="first") == 0
    assert await cached(cache_salt="first") >= 16
    assert await cached(cache_salt="second") == 0
    stream = await client.completions.create(
        model=model, prompt=prompt, max_tokens=2, stream=True, stream_options={"include_usage": True},
        extra_body={"cache_salt": "first"},
    )
    last = [chunk async for chunk in stream][-1].usage
    assert last is not None
    assert last.prompt_tokens_details is not None
    assert (last.prompt_tokens_details.cached_tokens or 0) >= 16


async def test_a_fingerprint_proves_which_weights_answered(
    client: AsyncOpenAI, server: TestServer, model: str, make_adapter: Callable[..., AdapterInfo]
) -> None:
    for seed in (1, 2):
        assert (await post(server, "/adapters", name=f"tuned-{seed}", path=make_adapter(seed).path))[0] == 200

    async def ask(name: str) -> str | None:
        return (await client.chat.completions.create(model=name, messages=HELLO, max_tokens=1)).system_fingerprint

    prints = [await ask(name) for name in (model, "tuned-1", "tuned-2")]
    assert len(set(prints)) == 3
    assert (await ask(model)) == prints[0]
    async for chunk in await client.chat.completions.create(model="tuned-1", messages=HELLO, max_tokens=2, stream=True):
        assert chunk.system_fingerprint == prints[1]


async def test_a_soft_prompt_takes_positions_but_is_not_counted(
    client: AsyncOpenAI, server: TestServer, served: Served, model: str, tmp_path: Path
) -> None:
    info = save_peft(served.base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5), tmp_path / "soft")
    assert (await post(server, "/adapters", name="soft", path=info.path))[0] == 200

    async def ask(name: str, **asked: Any) -> Any:
        return await client.completions.create(model=name, prompt=[5, 6, 7], temperature=0, **asked)

    plain, soft = [await ask(name, max_tokens=4, echo=True, logprobs=1) for name in (model, "soft")]
    assert soft.usage.prompt_tokens == plain.usage.prompt_tokens == 3
    assert len(soft.choices[0].logprobs.tokens) == len(plain.choices[0].logprobs.tokens) == 7
    assert soft.choices[0].logprobs.token_logprobs[1:] != plain.choices[0].logprobs.token_logprobs[1:]
    limit = served.base.max_positions
    assert (await ask(model, max_tokens=limit - 3)).usage.total_tokens <= limit
    with pytest.raises(openai.BadRequestError) as caught:
        await ask("soft", max_tokens=limit - 3)
    assert caught.value.code == "context_length_exceeded"
    vectors = [(await client.embeddings.create(model=name, input=[5, 6, 7])).data[0].embedding for name in (model, "soft")]
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)


# -- embeddings and tokens ----------------------------------------------------------------------------------------------


async def test_embeddings_are_unit_vectors_alike_for_like_texts(client: AsyncOpenAI, server: TestServer, model: str) -> None:
    answer = await client.embeddings.create(model=model, input=["one text", "one text", "quite another"])
    first, same, other = ([*item.embedding] for item in answer.data)
    assert first == pytest.approx(same, abs=1e-5)
    assert first != pytest.approx(other, abs=1e-2)
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    by_ids = await client.embeddings.create(model=model, input=[5, 6, 7], encoding_format="float")
    status, body = await post(server, "/v1/embeddings", model=model, input=[[5, 6, 7]], encoding_format="base64")
    assert status == 200
    packed = base64.b64decode(body["data"][0]["embedding"])
    assert struct.unpack(f"<{len(packed) // 4}f", packed) == pytest.approx(by_ids.data[0].embedding, abs=1e-5)


@pytest.mark.parametrize(("extra", "param"), [
    ({"input": "x", "dimensions": 8}, "dimensions"), ({"input": ""}, "input"), ({"input": [99999]}, "input"),
    ({"input": "a b " * 300}, "input"), ({}, "input"),
])
async def test_an_embedding_that_cannot_be_made_is_refused(
    server: TestServer, model: str, extra: dict[str, Any], param: str
) -> None:
    status, body = await post(server, "/v1/embeddings", model=model, **extra)
    assert (status, body["error"]["param"]) == (400, param)


async def test_texts_become_tokens_and_tokens_texts(server: TestServer, model: str, served: Served) -> None:
    status, body = await post(server, "/tokenize", prompt="Héllo 数学", return_token_strs=True)
    assert status == 200
    assert (body["count"], body["max_model_len"]) == (len(body["tokens"]), served.base.max_positions)
    assert len(body["token_strs"]) == body["count"]
    assert await post(server, "/detokenize", tokens=body["tokens"]) == (200, {"prompt": "Héllo 数学"})
    chat = (await post(server, "/tokenize", model=model, messages=HELLO))[1]["tokens"]
    text = (await post(server, "/detokenize", tokens=chat))[1]["prompt"]
    assert text.endswith("<|im_start|>assistant\n")
    assert (await post(server, "/tokenize", prompt="x", model="nobody"))[0] == 404
    assert (await post(server, "/detokenize", tokens=[99999]))[1]["error"]["param"] == "tokens"
