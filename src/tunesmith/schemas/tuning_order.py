"""What a client may order as a fine-tuning job: OpenAI's fields, read here and made a recipe in `to_recipe`.

What OpenAI has no field for comes as `recipe`, any part of the recipe, which the recipe's own class validates. Whether there is
such a method, the table of methods says (recipes/method.py): this file names none that it could miss.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.errors import InvalidRecipe, InvalidRequest
from tunesmith.recipes.grader import Multi, Python, ScoreModel, StringCheck, TextSimilarity
from tunesmith.recipes.method import METHODS
from tunesmith.recipes.run import Recipe, merge, parse
from tunesmith.schemas.common import Body

Auto = Literal["auto"]
Type = Literal["supervised", "dpo", "reinforcement"]

OURS: dict[str, str] = {"supervised": "sft", "dpo": "dpo", "reinforcement": "grpo"}
"""OpenAI's `method.type` -> a recipe's."""

FIELDS = {"n_epochs": "epochs"}
"""OpenAI's name of a hyperparameter -> the method's field, where they differ."""


class Hyperparameters(Body):
    """Numbers of every method; `auto` lets `recipes/auto.py` choose."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=100)] = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    compute_multiplier: Auto | Annotated[float, Field(gt=1e-5, le=10)] = "auto"
    eval_interval: Auto | Annotated[int, Field(ge=1)] = "auto"
    eval_samples: Auto | Annotated[int, Field(ge=1)] = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


class Supervised(Body):
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Dpo(Body):
    hyperparameters: DpoHyperparameters = Field(default_factory=DpoHyperparameters)


RewardGrader = Annotated[StringCheck | TextSimilarity | Python | ScoreModel | Multi, Field(discriminator="type")]
"""Graders that give a reward; whether they can be run, graders/check.py says."""


class Reinforcement(Body):
    grader: RewardGrader
    hyperparameters: ReinforcementHyperparameters = Field(default_factory=ReinforcementHyperparameters)
    response_format: dict[str, Any] | None = None


class Method(Body):
    type: Type
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None


class WandbTarget(Body):
    """As a recipe's `tracking` has it."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    name: Annotated[str, Field(max_length=128)] | None = None
    entity: Annotated[str, Field(max_length=128)] | None = None
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=50)] = []


class Integration(Body):
    type: Literal["wandb"]
    wandb: WandbTarget


class JobCreate(Body):
    """The body of POST /v1/fine_tuning/jobs."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    training_file: Annotated[str, Field(min_length=1, max_length=200)]
    validation_file: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._ -]*$")] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    """OpenAI's older place for the numbers; `method` wins."""
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None
    recipe: dict[str, Any] | None = None

    @property
    def type(self) -> Type:
        return "supervised" if self.method is None else self.method.type

    @property
    def part(self) -> Supervised | Dpo | Reinforcement:
        """What belongs to the method. Raises InvalidRequest when it lacks what it needs, or another method's part came along."""
        method = self.method or Method(type="supervised")
        parts = {"supervised": method.supervised, "dpo": method.dpo, "reinforcement": method.reinforcement}
        for name, part in parts.items():
            if part is not None and name != self.type:
                raise InvalidRequest(
                    f"method.{name} does not belong to a method of type {self.type}.", hint="Leave it out.",
                    param=f"method.{name}", code="invalid_value",
                )
        if (found := parts[self.type]) is not None:
            return found
        if self.type == "reinforcement":
            raise InvalidRequest(
                "Missing required parameter: method.reinforcement.grader.", hint="Its scores are the rewards.",
                param="method.reinforcement.grader", code="missing_required_parameter",
            )
        return Dpo() if self.type == "dpo" else Supervised(hyperparameters=self.hyperparameters or Hyperparameters())


SET_ELSEWHERE = {
    ("base",): "model",
    ("data", "train"): "training_file",
    ("data", "validation"): "validation_file",
    ("tracking",): "integrations",
}
"""Fields of a recipe that a client sets through OpenAI's own: files and bases are named by id, never by path."""
OWNERS = {("checkpoints", "sync"): "The server's own keys would be used for it; it is a field of recipes for `tunesmith train`."}
"""Fields that only a machine's owner may set -> why."""


def to_recipe(body: JobCreate, *, base: str, train: str, validation: str | None) -> Recipe:
    """The whole recipe of an order; `train` and `validation` are names in the run folder.

    Raises InvalidRequest for what we cannot do, InvalidRecipe with the path `recipe.<field>` for a wrong field.
    """
    own = body.recipe or {}
    _refuse_set_elsewhere(own)
    method = _method(body)
    data = {"train": train, "validation": validation}
    if body.type == "reinforcement":
        data["format"] = "reinforcement"  # it cannot be told from a row's fields
        if validation is None:
            raise InvalidRequest(
                "Missing required parameter: validation_file.", hint="Rewards are measured on rows that are not trained on.",
                param="validation_file", code="missing_required_parameter",
            )
    whole: dict[str, Any] = {"base": base, "name": body.suffix or "", "data": data, "method": method}
    whole["tracking"] = [{"type": each.type} | each.wandb.model_dump() for each in body.integrations or []]
    if body.seed is not None:
        whole["seed"] = body.seed
    try:
        return parse(merge(whole, own))
    except InvalidRecipe as error:
        path = error.param if error.param == "recipe" else f"recipe.{error.param}"
        raise InvalidRecipe(f"recipe.{error.message}", hint=error.hint, param=path, code=error.code) from error


def _method(body: JobCreate) -> dict[str, Any]:
    """The recipe's method, as far as OpenAI's fields say it. Raises InvalidRequest when the table of methods lacks it."""
    part = body.part
    ours = OURS[body.type]
    if ours not in METHODS:
        there = ", ".join(name for name, method in OURS.items() if method in METHODS)
        raise InvalidRequest(
            f"Fine-tuning by the method {body.type} is not available on this server.",
            hint=f"There is {there}; more by `recipe.method.type`, see docs/recipes.md.",
            param="method.type", code="not_available",
        )
    numbers = {FIELDS.get(name, name): value for name, value in _said(part.hyperparameters).items()}
    return {"type": ours} | numbers | _rewards(part)


def _rewards(part: Supervised | Dpo | Reinforcement) -> dict[str, Any]:
    if not isinstance(part, Reinforcement):
        return {}
    shape = {} if part.response_format is None else {"response_format": part.response_format}
    return {"grader": part.grader.model_dump(mode="json", exclude_none=True)} | shape


def _said(numbers: Hyperparameters) -> dict[str, Any]:
    """Those that are not left to us."""
    return {name: value for name, value in numbers.model_dump().items() if value not in {"auto", "default"}}


def to_order(body: JobCreate, recipe: Recipe) -> dict[str, Any]:
    """What the client asked for, as the job echoes it."""
    part = body.part
    return {
        "model": recipe.base,
        "training_file": body.training_file,
        "validation_file": body.validation_file,
        "suffix": recipe.name or None,
        "method": body.type,
        "hyperparameters": part.hyperparameters.model_dump(),
        "reinforcement": _rewards(part),
        "integrations": [integration.model_dump() for integration in body.integrations or []],
    }


def _refuse_set_elsewhere(part: dict[str, Any]) -> None:
    for path, instead in (SET_ELSEWHERE | OWNERS).items():
        inner: Any = part
        for name in path[:-1]:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and path[-1] in inner:
            field = ".".join(("recipe", *path))
            if path in OWNERS:
                raise InvalidRecipe(f"{field}: is not for clients.", hint=instead, param=field)
            raise InvalidRecipe(f"{field}: is set by `{instead}`.", hint=f"Pass `{instead}` and leave it out here.", param=field)
