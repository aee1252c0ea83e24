"""Moderations: a configured judge gives every category a number; without one the answer says what to configure."""

import json

import openai
import pytest
from openai.types import ModerationCreateResponse

from api.conftest import serve
from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.schemas.moderations import CATEGORIES, to_result, to_texts
from tunesmith.settings import Settings


@pytest.fixture(scope="module")
def judging(tmp_path_factory, talking):
    """A server with a judge, whose engine is the other server of these tests."""
    elsewhere = {"engine": "openai", "upstream": f"http://127.0.0.1:{talking.port}/v1", "upstream_key_env": "ELSEWHERE"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELSEWHERE", talking.key)
        settings = Settings(data_dir=tmp_path_factory.mktemp("judging"), **elsewhere, moderation_model="tunesmith/tiny")
        with serve(settings) as running:
            yield running


def test_each_text_gets_every_category(judging):
    answer = judging.client().moderations.create(model="omni-moderation-latest", input=["river", "piano"])
    ModerationCreateResponse.model_validate(answer.model_dump(by_alias=True))
    assert len(answer.results) == 2
    scores = answer.results[0].category_scores.model_dump(by_alias=True)
    assert set(scores) == set(CATEGORIES)
    assert all(0 <= score <= 1 for score in scores.values())
    flags = answer.results[0].categories.model_dump(by_alias=True)
    assert answer.results[0].flagged == any(flags.values())


def test_parts_are_one_text_and_images_are_refused(judging):
    client = judging.client()
    assert len(client.moderations.create(input=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]).results) == 1
    with pytest.raises(openai.BadRequestError) as caught:
        client.moderations.create(input=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}])
    assert (caught.value.code, caught.value.param) == ("not_available", "input[0]")
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(model="another", input="x")


def test_without_a_judge_the_answer_says_what_to_configure(talking):
    with pytest.raises(openai.BadRequestError) as caught:
        talking.client().moderations.create(input="x")
    assert (caught.value.code, "--moderation-model" in caught.value.message) == ("not_available", True)


@pytest.mark.parametrize("value", [None, 5, [], [5], ["x"] * 257, [{"type": "text"}]])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(InvalidRequest):
        to_texts({"input": value})
    with pytest.raises(InvalidRequest):
        to_texts({"input": "x", "other": 1})


def test_a_judgement_is_read_and_anything_else_is_the_judges_fault():
    result = to_result(json.dumps({name: 0 for name in CATEGORIES} | {"violence": 9}))
    assert (result["flagged"], result["categories"]["violence"], result["category_scores"]["violence"]) == (True, True, 0.9)
    assert not to_result(json.dumps({name: 4 for name in CATEGORIES}))["flagged"]
    for content in (None, "no", "[]", "{}", json.dumps({name: "x" for name in CATEGORIES})):
        with pytest.raises(EngineFailed):
            to_result(content)
