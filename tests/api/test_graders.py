"""Graders through the official client and as plain HTTP, as OpenAI's cookbook has them; the judge is the tiny engine."""

import json

import openai
import pytest
from openai.types.fine_tuning.alpha import GraderRunResponse

RUN, VALIDATE = "/v1/fine_tuning/alpha/graders/run", "/v1/fine_tuning/alpha/graders/validate"
JSON = {"content-type": "application/json"}
CHECK = {
    "type": "string_check", "name": "right", "operation": "ilike",
    "input": "{{ sample.output_text }}", "reference": "{{ item.city.names[0] }}",
}
ITEM = {"city": {"names": ["Paris"]}}
JUDGE = {
    "type": "score_model", "name": "judge", "model": "tunesmith/tiny", "range": [0, 4],
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Grade from 0 to 4: {{ sample.output_text }}"}]}],
    "sampling_params": {"temperature": 0, "seed": 1, "max_completions_tokens": 60},
}


@pytest.fixture(scope="module")
def served(talking):
    return talking


def run(client, grader, sample="in paris", item=ITEM):
    return client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item)


def test_a_grader_is_run_and_the_client_s_own_model_accepts_the_answer(client):
    found = run(client, CHECK)
    assert found.reward == 1
    assert (found.metadata.name, found.metadata.type, found.metadata.token_usage) == ("right", "string_check", None)
    raw = json.loads(found.to_json())
    GraderRunResponse.model_validate(raw, strict=True)
    assert len(raw["metadata"]["errors"]) == 14
    assert not any(raw["metadata"]["errors"].values())


def test_the_answer_is_json_to_templates_where_it_is_json(client):
    grader = CHECK | {"input": "{{ sample.output_json.towns[1] }}", "operation": "eq"}
    assert run(client, grader, '{"towns": ["Rome", "Paris"]}').reward == 1
    missing = run(client, grader, "no JSON")
    assert (missing.reward, missing.metadata.errors.invalid_variable_error) == (0, True)


def test_a_judge_of_this_server_gives_a_number_in_the_range_or_the_reason(client):
    found = run(client, JUDGE, "A fine answer.")
    assert 0 <= found.reward <= 4
    errors = json.loads(found.to_json())["metadata"]["errors"]
    assert errors["model_grader_server_error"] is False, errors
    assert found.metadata.sampled_model_name == "tunesmith/tiny"
    usage = found.to_dict()["model_grader_token_usage_per_model"]["tunesmith/tiny"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] == found.metadata.token_usage > 0


def test_a_judge_that_is_unknown_is_an_error_of_the_grading_and_not_of_the_request(client):
    found = run(client, JUDGE | {"model": "nobody"})
    errors = json.loads(found.to_json())["metadata"]["errors"]
    assert (found.reward, errors["model_grader_server_error"]) == (0, True)
    assert "nobody" in errors["model_grader_server_error_details"]


def test_multi_takes_a_table_and_cosine_asks_for_embeddings(client):
    near = {"type": "text_similarity", "evaluation_metric": "cosine", "input": "{{ sample.output_text }}", "reference": "Paris"}
    multi = {"type": "multi", "graders": {"right": CHECK, "near": near}, "calculate_output": "(right + near) / 2"}
    found = run(client, multi, "Paris")
    assert found.reward == pytest.approx(1, abs=1e-3)
    assert set(found.sub_rewards) == {"right", "near"}


def test_validate_gives_the_grader_back_as_it_was(served):
    multi = {"type": "multi", "name": "all", "graders": {"right": CHECK}, "calculate_output": "right"}
    for grader in (CHECK, JUDGE, multi, multi | {"graders": CHECK}):
        status, headers, body = served.request("POST", VALIDATE, json.dumps({"grader": grader}), headers=JSON)
        assert (status, body) == (200, {"grader": grader})
        assert headers["x-request-id"].startswith("req_")


def test_a_name_may_be_missing_and_not_equal_has_two_spellings(served):
    grader = {key: value for key, value in CHECK.items() if key != "name"} | {"operation": "neq"}
    status, _, body = served.request("POST", VALIDATE, json.dumps({"grader": grader}), headers=JSON)
    assert (status, body["grader"]["name"], body["grader"]["operation"]) == (200, "", "ne")


@pytest.mark.parametrize(("grader", "param", "code"), [
    ({"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0"}, "grader.type", "not_available"),
    (CHECK | {"input": "{{ env.HOME }}"}, "grader.input", "invalid_template"),
    ({"type": "multi", "graders": {"a": CHECK}, "calculate_output": "a + "}, "grader.calculate_output", "formula_parse_error"),
])
def test_what_cannot_be_run_is_refused_by_both_routes(client, grader, param, code):
    graders = client.fine_tuning.alpha.graders
    for call in (lambda: graders.validate(grader=grader), lambda: run(client, grader)):
        with pytest.raises(openai.BadRequestError) as caught:
            call()
        assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("body", [
    {}, {"grader": {"type": "banana"}}, {"grader": CHECK}, {"grader": CHECK | {"operation": "regex"}, "model_sample": ""},
    {"grader": CHECK, "model_sample": "x", "item": []}, {"grader": CHECK, "model_sample": "x", "extra": 1},
])
def test_a_wrong_body_is_a_400(served, body):
    status, _, answer = served.request("POST", RUN, json.dumps(body), headers=JSON)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
