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


class PlannedPhase(Wire):
    """What training holds at one moment of a step."""

    name: str
    bytes: int
    parts: dict[str, int]


class Rental(Wire):
    """A machine that could be rented for the job: expected hours, and dollars for all of them."""

    gpu: str
    count: int
    provider: str
    instance: str
    spot: bool
    hours: float
    usd: float
    source: str
    price_date: str
    price_age: str
    """Empty for a price that is dated and at most 30 days old."""


class Machine(Wire):
    """What the job would take. `tokens_per_pass` is what the phases are told for; the worker chooses by its own memory."""

    tokens_per_pass: int
    peak_bytes: int
    phases: list[PlannedPhase]
    rentals: list[Rental]
    """The cheapest of each kind of GPU on demand and spot, the cheapest first."""
    rejected: dict[str, str]
    """GPU -> why it does not do."""


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
    machine: Machine | None
    """None for a base whose architecture is not planned for; `not_planned` says so."""
    not_planned: str | None


def tokens_per_epoch(file: PlannedFile, num_rows: int) -> int:
    """Of `num_rows` of the file's rows, by their bytes."""
    return file.bytes * num_rows // file.rows // BYTES_PER_TOKEN


def to_plan(
    method: str, asked: dict[str, Any], recipe: Recipe, num_held_out: int, files: list[PlannedFile], machine: Machine | str
) -> Plan:
    """`recipe` has every number chosen; `asked` are OpenAI's hyperparameters as the order has them; `machine` may be a reason why
    there is none."""
    training, method_recipe = files[0], recipe.method
    rows = training.rows - num_held_out
    rehearsed = round(rows * recipe.data.rehearsal / (1 - recipe.data.rehearsal))
    return Plan(
        model=recipe.base,
        method=method,
        files=files,
        training_rows=rows,
        held_out_rows=num_held_out if recipe.data.validation is None else files[1].rows,
        estimated_tokens_per_epoch=tokens_per_epoch(training, rows),
        steps=num_steps(rows + rehearsed, method_recipe.batch_size or 1, method_recipe.epochs or 1),
        hyperparameters=to_numbers(asked, method_recipe.model_dump()),
        recipe=recipe.model_dump(mode="json"),
        machine=None if isinstance(machine, str) else machine,
        not_planned=machine if isinstance(machine, str) else None,
    )
