"""A run goes on only on what it began with: what has changed is named; other versions are told, and go on."""

import pytest

from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import TrainingFailed
from tunesmith.models.catalog import find_base
from tunesmith.recipes.run import parse
from tunesmith.train.fingerprint import NAMES, compare, made_from


@pytest.fixture(scope="module")
def began():
    return make()


def make(rows="abc", **recipe):
    base = find_base("tunesmith/tiny")
    return made_from(parse({"data": {"train": "x.jsonl"}} | recipe), base, load_tokenizer(base.folder), rows)


def test_the_same_goes_on_without_a_word(began):
    compare(make(), began, pytest.fail)


def test_where_and_how_often_may_change(began):
    compare(make(checkpoints={"every_steps": 3}, threads=2, compute={"recompute": "all"}), began, pytest.fail)


@pytest.mark.parametrize("name", NAMES)
def test_each_change_is_named(began, name):
    with pytest.raises(TrainingFailed, match=f"has changed: {NAMES[name]}"):
        compare(began | {name: "other"}, began, pytest.fail)


def test_another_rate_or_kind_of_adapter_is_another_recipe(began):
    for change in ({"method": {"learning_rate": 0.5}}, {"adapter": {"rank": 3}}, {"seed": 3}):
        with pytest.raises(TrainingFailed, match="has changed: the recipe"):
            compare(make(**change), began, pytest.fail)


def test_other_versions_are_told(began):
    told = []
    compare(began | {"versions": "torch 9"}, began, told.append)
    assert "torch 9" in told[0]
