"""The judge judges: what the specification allows passes, what it does not is named."""

import pytest

from api import openai_spec
from api.openai_spec import Operation

MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "us"}


def test_an_answer_as_specified_passes_and_another_is_named_by_its_field():
    models = Operation("GET", "/models")
    assert openai_spec.problems(models, 200, {"object": "list", "data": [MODEL]}) == []
    (problem,) = openai_spec.problems(models, 200, {"object": "list", "data": [MODEL | {"created": "today"}]})
    assert problem.startswith("data.0.created: ")


@pytest.mark.parametrize("body", [{"detail": "no"}, {"error": "no"}, {"error": {"message": "no", "type": "x", "param": None}}])
def test_an_error_needs_all_four_fields(body):
    assert openai_spec.problems(None, 404, body) != []
    assert openai_spec.problems(None, 404, {"error": {"message": "no", "type": "x", "param": None, "code": None}}) == []


@pytest.mark.parametrize(("path", "template"), [
    ("/v1/models/tunesmith/tiny", "/models/{model}"), ("/v1/fine_tuning/jobs/ftjob-1", "/fine_tuning/jobs/{fine_tuning_job_id}"),
    ("/v1/fine_tuning/checkpoints/ft:a/b::c:ckpt-step-1/permissions",
     "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions"),
    ("/v1/projects", None),
])
def test_a_path_is_matched_to_its_operation(path, template):
    found = openai_spec.find("GET", path)
    assert (found.path if found else None) == template


def test_the_fields_of_a_body_are_found_through_references():
    assert {"messages", "model", "temperature", "store"} <= set(openai_spec.fields(Operation("POST", "/chat/completions")))
    assert {"file", "purpose"} <= set(openai_spec.fields(Operation("POST", "/files")))
