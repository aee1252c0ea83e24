"""How to train: the method with its numbers. No torch, no paths.

`METHODS` is the table of what there is: a recipe takes what it holds, whoever orders a job asks it, and `train/methods.py` has a
function for each. Something new is a class here and a line in the table. What is trained stands in `adapter.py`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny
from pydantic_core import PydanticCustomError


class Part(BaseModel):
    """A part of a recipe: unknown fields are refused, values are checked, nothing changes after."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Method(Part):
    """The numbers that every method has which makes optimizer steps over rows."""

    formats: ClassVar[frozenset[str]] = frozenset()
    """Formats of rows (recipes/data.py) that the method can use."""

    type: str
    """The method."""

    @property
    def needs_reference(self) -> bool:
        """Does it compare with the base as it was?"""
        return False

    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Passes over the training rows; None chooses by their number (`recipes/auto.py`)."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows per optimizer step; None chooses by the number of rows."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows per forward pass, at most batch_size; None means batch_size."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Peak learning rate of AdamW; None chooses by the base's width."""
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Factor on the learning rate, as in OpenAI's API."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises from zero."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decoupled weight decay; 0, for a LoRA's update starts at zero anyway."""
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Memory of AdamW's squared gradients; the usual 0.999 remembers longer than a run of a few hundred steps lasts."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Tokens of the longest row; a longer one is an error, never cut. None means the base's positions."""


class SftMethod(Method):
    """Supervised fine-tuning: cross-entropy on the assistant's tokens."""

    formats: ClassVar[frozenset[str]] = frozenset(
        {"chat", "alpaca", "sharegpt", "prompt_completion", "question_answer", "text"}
    )
    """Those that have answers to learn, and no bad ones among them."""

    type: Literal["sft"] = "sft"
    """The method."""


METHODS: dict[str, type[Method]] = {"sft": SftMethod}
"""A recipe's `method.type` -> its fields. The first is the default."""


def by_type(value: Any, table: dict[str, Any], noun: str) -> Any:
    """`value` as the class that the table has for its `type`; what is no object is left for pydantic to refuse."""
    if not isinstance(value, dict):
        return value
    name = value.get("type", next(iter(table)))
    if not isinstance(name, str) or name not in table:
        there = {"name": str(name), "noun": noun, "names": ", ".join(table)}
        raise PydanticCustomError("not_available", "the {noun} {name} is not available here; there are: {names}", there)
    return table[name].model_validate(value)


AnyMethod = Annotated[SerializeAsAny[Method], BeforeValidator(lambda value: by_type(value, METHODS, "method"))]
