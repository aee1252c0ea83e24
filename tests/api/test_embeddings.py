"""Embeddings: as numbers and as base64, cut on wish, of the embedding model that the server was given."""

import base64
import json
import math
import struct
from dataclasses import replace

import jinja2
import openai
import pytest

from tunesmith.api.embeddings import embedder
from tunesmith.errors import InvalidRequest
from tunesmith.models.shelf import add
from tunesmith.schemas.embeddings import check_embeddings, cut
from tunesmith.serving.routing import base_target
from tunesmith.serving.upstream import Adapter

TALK = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]


@pytest.fixture
def served(talking):
    return talking


def test_vectors_are_cut_and_of_length_one_again_in_both_formats(client):
    whole = client.embeddings.create(model="gpt-4o-mini", input="river", encoding_format="float").data[0].embedding
    for encoding in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="gpt-4o-mini", input=["river", "piano"], dimensions=8, **encoding)
        short = found.data[0].embedding
        assert len(short) == 8
        assert math.hypot(*short) == pytest.approx(1, abs=1e-6)
        assert short == pytest.approx([value / math.hypot(*whole[:8]) for value in whole[:8]], abs=1e-6)
        assert (found.model, found.usage.total_tokens > 0) == ("gpt-4o-mini", True)


def test_more_dimensions_than_there_are_are_refused(client):
    for size in (257, 0, "x"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="tunesmith/tiny", input="river", dimensions=size)
        assert caught.value.param == "dimensions"


def test_base64_is_little_endian_float32():
    answer = {"data": [{"embedding": [3.0, 4.0, 9.0]}]}
    made = cut(answer, {"dimensions": 2, "encoding_format": "base64"})["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(made)) == pytest.approx((0.6, 0.8))


def test_what_is_wrong_is_refused_with_its_field():
    for name, value in (("encoding_format", "hex"), ("no_such", 1), ("dimensions", True)):
        with pytest.raises(InvalidRequest) as caught:
            check_embeddings({name: value}, "embedded")
        assert caught.value.param == name


async def test_the_embedding_model_computes_for_all_bases_but_not_for_fine_tuned_models(served, small_base):
    add(small_base.folder, served.desk.settings.dirs.models, name="embedder")
    desk = replace(served.desk, settings=served.desk.settings.model_copy(update={"embedding_model": "embedder"}))
    asked = replace(base_target("tunesmith/tiny"), model_id="text-embedding-3-small")
    assert await embedder(desk, asked) == replace(base_target("embedder"), model_id="text-embedding-3-small")
    tuned = replace(asked, adapter=Adapter(small_base.folder, "abc"))
    assert await embedder(desk, tuned) is tuned
    assert await embedder(served.desk, asked) is asked


def test_harnesses_find_the_tokenizer_without_naming_a_model(served):
    status, _, info = served.request("GET", "/tokenizer_info")
    assert (status, info["eos_token"]) == (200, "<|im_end|>")
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(info["chat_template"])
    shown = template.render(messages=TALK, add_generation_prompt=True)
    turns = [f"<|im_start|>{said['role']}\n{said['content']}<|im_end|>\n" for said in TALK]
    assert shown == "".join(turns) + "<|im_start|>assistant\n"
    body = json.dumps({"prompt": info["eos_token"], "add_special_tokens": False})
    tokens = served.request("POST", "/tokenize", body)[2]["tokens"]
    assert len(tokens) == 1
    assert served.request("POST", "/detokenize", json.dumps({"tokens": tokens}))[2] == {"prompt": info["eos_token"]}
    assert served.request("GET", "/tokenizer_info?model=nobody")[0] == 404
