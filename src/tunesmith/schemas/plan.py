"""A plan on the wire: ours. What a job would do, as far as it can be told from its files and its recipe."""

from typing import Any, Literal

from tunesmith.recipes.auto import num_steps
from tunesmith.recipes.run import Recipe
from tunesmith.schemas.common import Wire
from tunesmith.schemas.fine_tuning import to_numbers

BYTES_PER_TOKEN = 3
"""The desk has no tokenizer; rather too many tokens than too few."""


class PlannedFile(Wire):
    param: str
    id: str
    bytes: int
    rows: int


class Plan(Wire):
    object: Literal["plan"] = "plan"
    model: str
    method: str
    files: list[PlannedFile]
    training_rows: int
    """Without those that are held out."""
    held_out_rows: int
    estimated_tokens_per_epoch: int
    """Bytes of the training rows / 3."""
    steps: int
    hyperparameters: dict[str, Any]
    """With the chosen numbers in place of `auto`."""
    recipe: dict[str, Any]


def to_plan(method: str, asked: dict[str, Any], recipe: Recipe, num_held_out: int, files: list[PlannedFile]) -> Plan:
    """`recipe` has every number chosen; `asked` are OpenAI's hyperparameters as the order has them."""
    training, method_recipe = files[0], recipe.method
    rows = training.rows - num_held_out
    rehearsed = round(rows * recipe.data.rehearsal / (1 - recipe.data.rehearsal))
    return Plan(
        model=recipe.base,
        method=method,
        files=files,
        training_rows=rows,
        held_out_rows=num_held_out if recipe.data.validation is None else files[1].rows,
        estimated_tokens_per_epoch=training.bytes * rows // training.rows // BYTES_PER_TOKEN,
        steps=num_steps(rows + rehearsed, method_recipe.batch_size or 1, method_recipe.epochs or 1),
        hyperparameters=to_numbers(asked, method_recipe.model_dump()),
        recipe=recipe.model_dump(mode="json"),
    )
