"""docs/recipes.md names every field with its default, and no other; docs/run-folder.md names every event."""

import re
from pathlib import Path
from typing import Any

from tunesmith.recipes.adapter import ADAPTERS
from tunesmith.recipes.compute import ComputeRecipe
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.evaluation import EvaluationRecipe
from tunesmith.recipes.method import METHODS
from tunesmith.recipes.run import CheckpointRecipe, Recipe

DOCS = Path(__file__).parents[2] / "docs"
PARTS: dict[str, tuple[Any, ...]] = {
    "": (Recipe,), "data.": (DataRecipe,), "method.": tuple(METHODS.values()), "adapter.": tuple(ADAPTERS.values()),
    "evaluation.": (EvaluationRecipe,), "checkpoints.": (CheckpointRecipe,), "compute.": (ComputeRecipe,),
}
"""A prefix -> the classes whose fields it has; where several have a field, the page tells the first one's default."""


def fields():
    for prefix, models in PARTS.items():
        found = {name: field for model in reversed(models) for name, field in model.model_fields.items()}
        for name, field in found.items():
            if prefix + name + "." not in PARTS:
                yield prefix + name, field


def test_every_field_stands_in_the_page_and_the_page_names_no_other():
    told = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", (DOCS / "recipes.md").read_text(), re.MULTILINE))
    assert set(told) == {name for name, _ in fields()}
    for name, field in fields():
        default = told[name].strip("`")
        if isinstance(field.default, str | float | int) and not isinstance(field.default, bool):
            assert default == str(field.default).removesuffix(".0") or default == '""' and field.default == "", name


def test_every_event_of_a_run_stands_in_the_page():
    page = (DOCS / "run-folder.md").read_text()
    source = "".join(
        (Path(__file__).parents[2] / "src/tunesmith" / name).read_text()
        for name in ("worker.py", "train/run.py", "train/attempt.py")
    )
    kinds = set(re.findall(r'emit\(\s*"(\w+)"', source))
    assert kinds >= {"phase", "step", "eval", "checkpoint", "resumed", "error", "result"}
    assert [kind for kind in kinds if f"`{kind}`" not in page] == []
