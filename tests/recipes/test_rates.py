"""The learning rate that a recipe leaves open follows the kind of adapter."""

import pytest

from tunesmith.recipes.auto import SOFT_RATES, learning_rate, resolve
from tunesmith.recipes.run import parse


@pytest.mark.parametrize("kind", ["lora", "full", *SOFT_RATES])
def test_each_kind_has_a_rate_of_its_own(kind):
    recipe = parse({"adapter": {"type": kind}, "data": {"train": "x"}})
    chosen = resolve(recipe, hidden_size=4096, num_rows=100, max_positions=512).method.learning_rate
    lora = learning_rate(4096)
    assert chosen == {"lora": lora, "full": 0.1 * lora}.get(kind, SOFT_RATES.get(kind))
    kept = parse({"adapter": {"type": kind}, "method": {"learning_rate": 0.007}, "data": {"train": "x"}})
    assert resolve(kept, hidden_size=4096, num_rows=100, max_positions=512).method.learning_rate == 0.007
