"""What a client orders becomes a recipe: OpenAI's fields, then any part of our own; what is wrong is refused by its path."""

import pytest
from orders import tuning_job
from pydantic import ValidationError

from tunesmith.db.events import JobEvent
from tunesmith.errors import InvalidRequest
from tunesmith.schemas.fine_tuning import JobCreate, event_from_row, from_row, to_recipe


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
        {"method": {"type": "dpo"}},
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


def test_integrations_are_refused_clearly_and_an_empty_list_is_none():
    assert recipe(integrations=[]).version == 1
    with pytest.raises(InvalidRequest) as caught:
        recipe(integrations=[{"type": "wandb", "wandb": {"project": "p"}}])
    assert caught.value.param == "integrations"


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
    measured = event_from_row(JobEvent("j", 1, 2, "eval", "Step 1", 5.5, payload={"step": 1, "loss": 0.5}))
    assert measured.data == {"step": 1, "valid_loss": 0.5}
    assert event_from_row(JobEvent("j", 0, 1, "desk", "Created", 5.5)).type == "message"
