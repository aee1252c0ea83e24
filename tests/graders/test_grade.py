"""Every grader's score, with a judge that says what the test wants."""

import json

import pytest
from pydantic import TypeAdapter

from tunesmith.completer import Completion
from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.graders.check import check, judges, uses_embeddings
from tunesmith.graders.grade import grade, threshold
from tunesmith.recipes.grader import Grader

ITEM, SAMPLE = {"answer": "Paris", "n": 3}, {"output_text": "It is paris."}
ADAPTER = TypeAdapter(Grader)


class Judge:
    """Says `content` to every question, or fails; keeps what it was asked."""

    def __init__(self, content="", error=None, **message):
        self.message, self.error = {"role": "assistant", "content": content, **message}, error
        self.asked = []

    async def complete(self, model, messages, **sampling):
        self.asked.append((model, messages, sampling))
        if self.error:
            raise self.error
        return Completion(self.message, "stop", 10, 5, 2)

    async def embed(self, texts):
        if self.error:
            raise self.error
        return [[1.0, 0.0], [1.0, 1.0]]


def read(fields):
    return ADAPTER.validate_python(fields)


async def graded(fields, judge=None, item=ITEM, sample=SAMPLE):
    grader = read(fields)
    check(grader)
    return await grade(grader, item, sample, judge or Judge())


def string_check(operation, text="{{ sample.output_text }}", right="{{ item.answer }}"):
    return {"type": "string_check", "input": text, "reference": right, "operation": operation}


def score_model(**fields):
    question = [{"role": "user", "content": "Grade {{ sample.output_text }}"}]
    return {"type": "score_model", "model": "judge", "input": question} | fields


LABELS = {
    "type": "label_model", "model": "judge", "input": [{"role": "user", "content": "Label {{ sample.output_text }}"}],
    "labels": ["good", "bad"], "passing_labels": ["good"],
}


@pytest.mark.parametrize(("operation", "score"), [("eq", 0), ("ne", 1), ("neq", 1), ("like", 0), ("ilike", 1)])
async def test_string_check_compares_as_asked(operation, score):
    assert (await graded(string_check(operation))).score == score
    assert (await graded(string_check(operation, "x", "x"))).score == (0 if operation in ("ne", "neq") else 1)


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_l"])
async def test_text_similarity_is_1_for_the_same_and_less_for_another(metric):
    text = "the cat sat on the mat"
    fields = {"type": "text_similarity", "evaluation_metric": metric, "input": text}
    assert (await graded(fields | {"reference": text})).score == pytest.approx(1)
    assert (await graded(fields | {"reference": "a dog, elsewhere"})).score < 0.5


async def test_cosine_is_of_the_embeddings_and_their_failure_is_data():
    fields = {"type": "text_similarity", "evaluation_metric": "cosine", "input": "a", "reference": "b"}
    assert (await graded(fields)).score == pytest.approx(0.5**0.5)
    failed = await graded(fields, Judge(error=EngineFailed("gone")))
    assert (failed.score, failed.errors["model_grader_server_error"], failed.reason) == (0, True, "gone")
    assert uses_embeddings(read(fields))


async def test_a_text_that_is_too_long_to_compare_is_an_error_of_its_row():
    fields = {"type": "text_similarity", "evaluation_metric": "rouge_l", "input": "{{ item.long }}", "reference": "x"}
    assert (await graded(fields, item={"long": "word " * 30_000})).errors == {"other_error": True}


@pytest.mark.parametrize(("said", "score"), [
    ('{"result": 0.5, "steps": []}', 0.5), ('{"result": 7, "steps": []}', 1), ('{"result": -2}', 0), ("0.75", 0.75),
    ('{"result": "0.25"}', 0.25), ('{"result": 0.5, "steps": [{"descr', 0.5),
])
async def test_a_judge_s_number_is_moved_into_the_range(said, score):
    judge = Judge(said)
    found = await graded(score_model(), judge)
    assert (found.score, found.errors) == (score, {})
    assert found.usage == {"judge": {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 2, "invocation_count": 1,
    }}
    model, messages, sampling = judge.asked[0]
    assert (model, messages) == ("judge", [{"role": "user", "content": "Grade It is paris."}])
    assert set(sampling["response_format"]["json_schema"]["schema"]["properties"]) == {"result", "steps"}


@pytest.mark.parametrize("said", [
    "", "fine", '{"result": 0.', '{"result": 3', '{"result": "fi', '{"result": "fine"}', '{"steps": []}', '{"result": true}',
    '{"result": NaN}', "[]", "[" * 9000,
])
async def test_a_judge_without_a_number_scores_0_and_is_a_parse_error(said):
    found = await graded(score_model(range=[2, 4]), Judge(said))
    assert (found.score, found.errors) == (0, {"model_grader_parse_error": True})


async def test_the_range_and_the_sampling_parameters_reach_the_judge():
    params = {"temperature": 0, "seed": 7, "top_p": 0.5, "max_completions_tokens": 12, "reasoning_effort": "low"}
    judge = Judge('{"result": 3.5}')
    assert (await graded(score_model(range=[2, 4], sampling_params=params), judge)).score == 3.5
    sampling = judge.asked[0][2]
    del sampling["response_format"]
    assert judge.asked[0][1] == [{"role": "user", "content": "Grade It is paris."}]
    assert sampling == {"temperature": 0, "seed": 7, "top_p": 0.5, "max_completion_tokens": 12, "reasoning_effort": "low"}


async def test_a_judge_that_fails_or_refuses_is_data():
    failed = await graded(score_model(), Judge(error=EngineFailed("gone")))
    assert failed.errors == {"model_grader_server_error": True, "model_grader_server_error_details": "gone"}
    refused = await graded(score_model(), Judge(None, refusal="I will not."))
    assert refused.errors == {"model_grader_refusal_error": True}


@pytest.mark.parametrize(("said", "score", "errors"), [
    ('{"result": "good"}', 1, {}), ('{"result": "bad"}', 0, {}), ("good", 1, {}),
    ('{"result": "fair"}', 0, {"model_grader_parse_error": True}),
])
async def test_a_label_passes_or_does_not(said, score, errors):
    judge = Judge(said)
    found = await graded(LABELS, judge)
    assert (found.score, found.errors) == (score, errors)
    assert judge.asked[0][2]["response_format"]["json_schema"]["schema"]["properties"]["result"]["enum"] == ["good", "bad"]


async def test_multi_computes_its_formula_over_all_parts():
    graders = {"exact": string_check("eq"), "near": string_check("ilike"), "judged": score_model()}
    fields = {"type": "multi", "graders": graders, "calculate_output": "0.5 * exact + 0.3 * near + judged ^ 2"}
    found = await graded(fields, Judge('{"result": 0.5}'))
    assert found.score == pytest.approx(0.55)
    assert found.scores == {"exact": 0, "near": 1, "judged": 0.5}
    assert judges(read(fields)) == ["judge"]
    one = {"type": "multi", "graders": string_check("ilike") | {"name": "near"}, "calculate_output": "near * 2"}
    assert (await graded(one)).score == 2


async def test_a_formula_without_a_value_and_a_part_that_fails_are_data():
    fields = {"type": "multi", "graders": {"a": string_check("eq", "{{ item.gone }}"), "b": string_check("ilike")}}
    found = await graded(fields | {"calculate_output": "a + b"})
    assert (found.score, found.errors) == (1, {"invalid_variable_error": True})
    found = await graded(fields | {"calculate_output": "b / a"})
    assert (found.score, found.errors) == (0, {"invalid_variable_error": True, "other_error": True})


MULTI = {"type": "multi", "graders": {"a": string_check("eq")}, "calculate_output": "a"}
PYTHON = {"type": "python", "source": "def grade(sample, item): return 1"}
METEOR = {"type": "text_similarity", "input": "", "reference": "", "evaluation_metric": "meteor"}
IMAGE = [{"type": "input_image", "image_url": "u"}]


def asked(content):
    return score_model(input=[{"role": "user", "content": content}])


@pytest.mark.parametrize(("fields", "param", "code"), [
    (PYTHON, "grader.type", "not_available"),
    (string_check("eq", "{{ row.x }}"), "grader.input", "invalid_template"),
    (string_check("eq", right="{{ item.x( }}"), "grader.reference", "invalid_template"),
    (METEOR, "grader.evaluation_metric", "not_available"),
    (score_model(range=[1, 1]), "grader.range", "invalid_value"),
    (asked({"type": "input_text", "text": "{{ x }}"}), "grader.input.0.content", "invalid_template"),
    (asked(IMAGE), "grader.input.0.content", "not_available"),
    (asked({"type": "input_text"}), "grader.input.0.content", "missing_required_parameter"),
    (LABELS | {"passing_labels": ["fair"]}, "grader.passing_labels", "invalid_value"),
    (MULTI | {"calculate_output": "b"}, "grader.calculate_output", "formula_parse_error"),
    (MULTI | {"graders": {"a b": string_check("eq")}}, "grader.graders", "invalid_value"),
    (MULTI | {"graders": {"a": PYTHON}}, "grader.graders.a.type", "not_available"),
])
def test_what_cannot_be_run_is_refused_by_field_and_reason(fields, param, code):
    with pytest.raises(InvalidRequest) as caught:
        check(read(fields))
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("nested", [
    MULTI | {"graders": {"a": MULTI}}, score_model(range=[0, float("inf")]), score_model(pass_threshold=float("nan")),
    string_check("eq") | {"extra": 1}, {"type": "banana"},
])
def test_a_shape_that_no_grader_has_is_refused(nested):
    with pytest.raises(ValueError):
        read(nested)


async def test_a_python_grader_s_code_is_never_executed(tmp_path):
    """Also where `check` was forgotten."""
    mark = tmp_path / "ran"
    source = f"open({str(mark)!r}, 'w').close()\ndef grade(sample, item):\n    return 1.0\n"
    found = await grade(read({"type": "python", "source": source}), ITEM, SAMPLE, Judge())
    assert (found.score, found.errors["python_grader_server_error_type"]) == (0, "not_available")
    assert not mark.exists()


def test_what_passes_without_a_threshold():
    assert threshold(read(string_check("eq"))) == 1
    assert threshold(read(score_model(range=[0, 4]))) == 2
    assert threshold(read(score_model(range=[0, 4], pass_threshold=3))) == 3
    assert threshold(read(LABELS)) == 1
    assert json.loads(read(LABELS).model_dump_json())["name"] == ""
