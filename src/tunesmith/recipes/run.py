"""A recipe: everything needed to repeat a run, as it lies in `recipe.json` of a run folder. No torch, no SQL.

Read from TOML or JSON with `load`, from a client's object with `parse`; both raise InvalidRecipe with the field's path.
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from tunesmith.errors import InvalidRecipe
from tunesmith.recipes.adapter import AnyAdapter, FullAdapter, LoraAdapter
from tunesmith.recipes.checkpoints import CheckpointRecipe
from tunesmith.recipes.compute import ComputeRecipe
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.evaluation import EvaluationRecipe
from tunesmith.recipes.method import AnyMethod, Part, SftMethod
from tunesmith.recipes.tracking import AnyTracker
from tunesmith.types import Quantization

P = TypeVar("P", bound=Part)

SECRET_WORDS = ("api_key", "token", "password", "secret")


class Recipe(Part):
    """One run."""

    version: Literal[1] = 1
    """Version of this shape; a worker refuses a version that it does not know."""
    name: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._ -]*$")] = ""
    """A name for people; it becomes the suffix of the fine-tuned model's id."""
    base: str = "tunesmith/tiny"
    """The base model: an id from `tunesmith models list`, or the path of a local folder."""
    quantization: Quantization = "none"
    """Precision of the frozen base: none, nf4 (QLoRA, Dettmers et al. 2023), or int8. The adapter is served on the same."""
    method: AnyMethod = Field(default_factory=SftMethod)
    """How to train."""
    adapter: AnyAdapter = Field(default_factory=LoraAdapter)
    """What is trained, on the frozen base."""
    compute: ComputeRecipe = Field(default_factory=ComputeRecipe)
    """How the machine is used."""
    data: DataRecipe
    """What to train on."""
    evaluation: EvaluationRecipe = Field(default_factory=EvaluationRecipe)
    """What to measure."""
    checkpoints: CheckpointRecipe = Field(default_factory=CheckpointRecipe)
    """When state is made durable."""
    tracking: Annotated[tuple[AnyTracker, ...], Field(max_length=5)] = ()
    """Services that are told the run's numbers: `{type = "wandb", project = "mine"}`; none by default."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Fixes adapter initialisation, order of rows and dropout."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 means all cores that the process may use."""
    secrets: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], ...] = ()
    """Names of environment variables that the run needs, such as HF_TOKEN. Never their values."""

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> "Recipe":
        micro, batch = self.method.micro_batch_size, self.method.batch_size
        if micro and batch and batch % micro:
            raise ValueError("method.batch_size must be a multiple of method.micro_batch_size")
        return self

    @model_validator(mode="after")
    def _trains_weights_that_can_move(self) -> "Recipe":
        if isinstance(self.adapter, FullAdapter) and self.quantization != "none":
            raise ValueError(f"quantization must be none for adapter.type full: weights in {self.quantization} cannot be trained")
        if isinstance(self.adapter, FullAdapter) and self.method.needs_reference:
            raise ValueError(f"adapter.type full trains the base away, with which {self.method.type} compares: take a LoRA")
        return self

    @model_validator(mode="after")
    def _compares_without_noise(self) -> "Recipe":
        if self.method.type != "sft" and isinstance(self.adapter, LoraAdapter) and self.adapter.dropout:
            raise ValueError(f"adapter.dropout must be 0 for {self.method.type}, which compares answers: it is noise in both")
        return self

    @model_validator(mode="after")
    def _scores_with_a_lora(self) -> "Recipe":
        plain = isinstance(self.adapter, LoraAdapter) and not self.adapter.use_dora
        if self.method.type == "reward" and not plain:
            raise ValueError("adapter.type must be lora, without use_dora, for reward: its scores come from a LoRA and a head")
        return self

    @model_validator(mode="after")
    def _rehearses_known_skills(self) -> "Recipe":
        if self.data.rehearsal and self.method.type != "sft":
            raise ValueError(f"data.rehearsal makes answers to learn, which {self.method.type} does not take")
        if self.data.rehearsal and self.base != "tunesmith/tiny":
            raise ValueError("data.rehearsal knows the skills of tunesmith/tiny only; for another base, mix rows into the file")
        return self


def parse(value: dict[str, Any]) -> Recipe:
    """The recipe of a JSON-like object. Raises InvalidRecipe naming the first wrong field by its path."""
    return parse_as(Recipe, value)


def parse_as(shape: type[P], value: dict[str, Any]) -> P:
    """The same for the recipe of any kind of job."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> InvalidRecipe:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"]) or "recipe"
    reason = "is not a field of a recipe" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden" and any(word in path.lower() for word in SECRET_WORDS):
        hint = "Secrets stand in a recipe by name only: list the environment variable in `secrets`."
    else:
        hint = "See docs/recipes.md for every field."
    if first["type"] == "not_available":
        return InvalidRecipe(f"{path}: {reason}.", hint=hint, param=f"{path}.type", code="not_available")
    return InvalidRecipe(f"{path}: {reason}.", hint=hint, param=path)


def load(path: Path) -> Recipe:
    """The recipe in a .toml or .json file; relative data paths are taken from the file's folder. Raises InvalidRecipe."""
    try:
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError as error:
        raise InvalidRecipe(f"There is no recipe at {path}.", hint="Check the path; examples/ has some.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise InvalidRecipe(f"{path} cannot be read as {path.suffix or 'JSON'}: {error}.", hint="Mend the file.") from error
    if not isinstance(value, dict):
        raise InvalidRecipe(f"{path} holds no object.", hint="A recipe is a table of fields; see docs/recipes.md.")
    recipe = parse(value)
    return recipe.model_copy(update={"data": _absolute(recipe.data, path.parent.absolute())})


def _absolute(data: DataRecipe, folder: Path) -> DataRecipe:
    named = {"train": data.train, "validation": data.validation}
    local = {name: str(folder / value) for name, value in named.items() if value is not None and not value.startswith("hub:")}
    return data.model_copy(update=local)


def merge(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """`part` laid over `whole`, table by table; neither is changed."""
    merged = dict(whole)
    for key, value in part.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
