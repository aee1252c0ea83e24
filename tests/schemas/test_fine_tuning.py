"""What a client orders becomes a recipe: OpenAI's fields, then any part of our own; what is wrong is refused by its path."""

import pytest
from openai.types.fine_tuning import FineTuningJob
from orders import tuning_job
from pydantic import ValidationError

from tunesmith.db.events import JobEvent
from tunesmith.errors import InvalidRequest
from tunesmith.recipes.adapter import ADAPTERS
from tunesmith.recipes.method import METHODS
from tunesmith.recipes.run import parse
from tunesmith.schemas.fine_tuning import event_from_row, from_row
from tunesmith.schemas.tuning_order import JobCreate, to_order, to_recipe


def order(**fields):
    return JobCreate.model_validate({"model": "tunesmith/tiny", "training_file": "file-1", **fields})


def recipe(**fields):
    return to_recipe(order(**fields), base="tunesmith/tiny", train="training.jsonl", validation=None)


def test_openais_numbers_become_the_methods():
    numbers = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    made = recipe(method={"type": "supervised", "supervised": {"hyperparameters": numbers}}, seed=7, suffix="mine")
    assert (made.method.epochs, made.method.batch_size, made.method.learning_rate_multiplier) == (3, None, 0.5)
    assert (made.seed, made.name, made.data.train, made.base) == (7, "mine", "training.jsonl", "tunesmith/tiny")


def test_the_older_place_of_the_numbers_works_and_method_wins():
    assert recipe(hyperparameters={"n_epochs": 2}).method.epochs == 2
    assert recipe(hyperparameters={}).method.epochs is None
    newer = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}}
    assert recipe(hyperparameters={"n_epochs": 2}, method=newer).method.epochs == 4


def test_any_part_of_the_recipe_is_laid_over():
    part = {"quantization": "nf4", "adapter": {"rank": 4}, "method": {"learning_rate": 0.001}, "data": {"rehearsal": 0.2}}
    made = recipe(recipe=part)
    assert (made.quantization, made.adapter.rank, made.adapter.alpha) == ("nf4", 4, 32.0)
    assert (made.method.learning_rate, made.data.rehearsal, made.data.train) == (0.001, 0.2, "training.jsonl")


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"adapter": {"rank": -1}}, "recipe.adapter.rank"),
        ({"method": {"rank": 4}}, "recipe.method.rank"),
        ({"adapter": 5}, "recipe.adapter"),
        ({"data": {"train": "/etc/passwd"}}, "recipe.data.train"),
        ({"data": {"validation": "../x"}}, "recipe.data.validation"),
        ({"base": "/somewhere"}, "recipe.base"),
        ({"api_key": "x"}, "recipe.api_key"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(part, path):
    with pytest.raises(InvalidRequest) as caught:
        recipe(recipe=part)
    assert caught.value.param == path
    assert caught.value.message.startswith(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"method": {"type": "magic"}},
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.1}}}},
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}},
        {"method": {"type": "reinforcement", "reinforcement": {"hyperparameters": {}}}},
        {"method": {"type": "reinforcement", "reinforcement": {"grader": {}, "hyperparameters": {"compute_multiplier": 11}}}},
        {"method": {"type": "reinforcement", "reinforcement": {"grader": {}, "hyperparameters": {"eval_interval": 0}}}},
        {"method": {"type": "reinforcement", "reinforcement": {"grader": {}, "hyperparameters": {"reasoning_effort": "max"}}}},
        {"integrations": [{"type": "mlflow"}]},
        {"integrations": [{"type": "wandb", "wandb": {"name": "no project"}}]},
        {"hyperparameters": {"n_epochs": 0}},
        {"hyperparameters": {"batch_size": 257}},
        {"hyperparameters": {"learning_rate_multiplier": "fast"}},
        {"hyperparameters": {"learning_rate_multiplier": float("nan")}},
        {"suffix": "x" * 65},
        {"suffix": "a:b"},
        {"seed": -1},
        {"seed": 2**31},
        {"metadata": {str(index): "" for index in range(17)}},
        {"metadata": {"key": "x" * 513}},
        {"owner": "me"},
        {"training_file": ""},
    ],
)
def test_fields_outside_openais_limits_are_refused(fields):
    with pytest.raises(ValidationError):
        order(**fields)


def test_a_method_that_the_table_lacks_is_refused_by_name(monkeypatch):
    monkeypatch.delitem(METHODS, "dpo")
    with pytest.raises(InvalidRequest, match="method dpo is not available") as caught:
        recipe(method={"type": "dpo"})
    assert (caught.value.param, caught.value.code) == ("method.type", "not_available")


def test_openais_dpo_becomes_ours_and_is_echoed_as_it_was_asked():
    asked = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.5}}}
    made = recipe(method=asked)
    assert (made.method.type, made.method.beta, made.method.epochs) == ("dpo", 0.5, 2)
    assert parse(made.model_dump(mode="json")) == made
    wire = from_row(tuning_job("ftjob-1", recipe=made.model_dump(mode="json"), order=to_order(order(method=asked), made)))
    numbers = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto", "beta": 0.5}
    assert (wire.method, wire.hyperparameters) == ({"type": "dpo", "dpo": {"hyperparameters": numbers}}, {})


@pytest.mark.parametrize("part", ["method", "adapter"])
def test_a_method_or_adapter_of_the_recipe_that_is_not_there_is_refused_by_name(part):
    with pytest.raises(InvalidRequest, match="magic is not available here; there are:") as caught:
        recipe(recipe={part: {"type": "magic"}})
    assert (caught.value.param, caught.value.code) == (f"recipe.{part}.type", "not_available")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_method_and_adapter_of_the_tables_can_be_asked(method, adapter):
    if (adapter == "full" and METHODS[method]().needs_reference) or (method == "reward" and adapter != "lora"):
        return  # tests/api has the refusals
    made = recipe(recipe={"method": {"type": method}, "adapter": {"type": adapter}})
    assert (type(made.method), type(made.adapter)) == (METHODS[method], ADAPTERS[adapter])


def test_the_part_of_another_method_and_a_missing_grader_are_refused():
    for asked, param in (
        ({"type": "supervised", "dpo": {}}, "method.dpo"),
        ({"type": "reinforcement"}, "method.reinforcement.grader"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            recipe(method=asked)
        assert caught.value.param == param


def job(**fields):
    whole = recipe().model_dump(mode="json")
    return tuning_job("ftjob-1", recipe=whole, created=5, order={"hyperparameters": {"n_epochs": "auto"}}, **fields)


def test_a_job_on_the_wire_has_all_that_openai_requires():
    wire = from_row(job()).model_dump()
    required = "created_at error finished_at fine_tuned_model hyperparameters id model object organization_id result_files status"
    for name in [*required.split(), "trained_tokens", "training_file", "validation_file", "seed", "recipe"]:
        assert name in wire
    assert wire["status"] == "validating_files"
    assert wire["seed"] == 42


@pytest.mark.parametrize("status", ["validating_files", "queued", "running", "succeeded", "failed", "cancelled"])
def test_openais_own_model_takes_a_job_in_every_state_strictly(status):
    error = {"code": "x", "message": "y", "param": None} if status == "failed" else None
    chosen = {"type": "sft", "epochs": 0.5, "batch_size": 8, "learning_rate_multiplier": 1.0}
    result = {"hyperparameters": chosen} if status in {"running", "succeeded", "cancelled"} else None
    wire = from_row(job(status=status, error=error, result=result, metadata={"a": "b"})).model_dump()
    told = FineTuningJob.model_validate(wire, strict=True)
    assert told.status == status
    assert told.hyperparameters.n_epochs == (1 if result else "auto")


def test_a_finished_job_tells_the_numbers_that_were_chosen():
    method = {"type": "sft", "epochs": 4.0, "batch_size": 8, "learning_rate_multiplier": 0.5, "learning_rate": 0.1}
    done = job(status="succeeded", result={"trained_tokens": 12, "hyperparameters": method}, estimated_finish=9)
    wire = from_row(done)
    assert wire.hyperparameters == {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 0.5}
    assert wire.method["supervised"]["hyperparameters"] == wire.hyperparameters
    assert (wire.trained_tokens, wire.estimated_finish) == (12, None)


def test_metrics_have_openais_names():
    numbers = {"step": 1, "total_steps": 2, "loss": 0.5, "token_accuracy": 0.25}
    wire = event_from_row(JobEvent("j", 1, 1, "step", "Step 1/2", 5.5, payload=numbers))
    assert wire.type == "metrics"
    assert wire.data == {"step": 1, "total_steps": 2, "train_loss": 0.5, "train_mean_token_accuracy": 0.25}
    numbers = {"step": 1, "loss": 0.5, "token_accuracy": 0.9, "train_loss": 0.4}
    measured = event_from_row(JobEvent("j", 1, 2, "eval", "Step 1", 5.5, payload=numbers))
    assert measured.data == {
        "step": 1, "train_loss": 0.4, "valid_loss": 0.5, "full_valid_loss": 0.5,
        "valid_mean_token_accuracy": 0.9, "full_valid_mean_token_accuracy": 0.9,
    }
    assert event_from_row(JobEvent("j", 0, 1, "desk", "Created", 5.5)).type == "message"
