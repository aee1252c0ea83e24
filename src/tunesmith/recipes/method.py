"""How to train: the method with its numbers, and the kind of adapter. No torch, no paths.

`METHODS` and `ADAPTERS` are the tables of what there is: a recipe takes what they hold, whoever orders a job asks them, and
`train/methods.py` has a function for each method of the first. Something new is a class here and a line in its table.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny
from pydantic_core import PydanticCustomError


class Part(BaseModel):
    """A part of a recipe: unknown fields are refused, values are checked, nothing changes after."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Adapter(Part):
    """What is trained on the frozen base; each kind is a class of its own."""

    type: str
    """The kind of adapter."""


class LoraAdapter(Adapter):
    """Low-rank adapters (Hu et al. 2021) on the base's linear layers."""

    type: Literal["lora"] = "lora"
    """The kind of adapter."""
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Columns of A and rows of B; 16 suffices for small supervised sets (Schulman et al. 2025, "LoRA Without Regret")."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs dropped while training."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers to adapt; all-linear is better than attention alone at equal size (ibid.)."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, for ranks above 64 (Kalajdzievski 2023)."""


class Method(Part):
    """The numbers that every method has which makes optimizer steps over rows."""

    formats: ClassVar[frozenset[str]] = frozenset()
    """Formats of rows (recipes/data.py) that the method can use."""

    type: str
    """The method."""
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

ADAPTERS: dict[str, type[Adapter]] = {"lora": LoraAdapter}
"""A recipe's `adapter.type` -> its fields. The first is the default."""


def _by_type(value: Any, table: dict[str, Any], noun: str) -> Any:
    """`value` as the class that the table has for its `type`; what is no object is left for pydantic to refuse."""
    if not isinstance(value, dict):
        return value
    name = value.get("type", next(iter(table)))
    if not isinstance(name, str) or name not in table:
        there = {"name": str(name), "noun": noun, "names": ", ".join(table)}
        raise PydanticCustomError("not_available", "the {noun} {name} is not available here; there are: {names}", there)
    return table[name].model_validate(value)


AnyMethod = Annotated[SerializeAsAny[Method], BeforeValidator(lambda value: _by_type(value, METHODS, "method"))]
AnyAdapter = Annotated[SerializeAsAny[Adapter], BeforeValidator(lambda value: _by_type(value, ADAPTERS, "adapter kind"))]
