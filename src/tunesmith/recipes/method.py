"""How to train: the method with its numbers. No torch, no paths.

`METHODS` is the table of what there is: a recipe takes what it holds, whoever orders a job asks it, and `train/methods.py` has a
function for each. Something new is a class here and a line in the table. What is trained stands in `adapter.py`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator
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
    """Peak learning rate of AdamW; None chooses by the method and the base's width (`recipes/auto.py`, docs/methods.md)."""
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
        {"chat", "alpaca", "sharegpt", "prompt_completion", "question_answer", "segments", "text"}
    )
    """Those that have answers to learn, and no bad ones among them."""

    type: Literal["sft"] = "sft"
    """The method."""


class PairMethod(Method):
    """The numbers of methods that learn from two answers to one prompt."""

    formats: ClassVar[frozenset[str]] = frozenset({"preference"})
    """Those that have a better and a worse answer."""


class DpoMethod(PairMethod):
    """Direct preference optimization (Rafailov et al. 2023) against the base, which is the reference."""

    type: Literal["dpo"] = "dpo"
    """The method."""
    loss: Literal["sigmoid", "ipo", "simpo"] = "sigmoid"
    """sigmoid is DPO's own; ipo (Azar et al. 2023) keeps from overfitting pairs that are certain; simpo (Meng et al. 2024) needs
    no reference, so a step costs three quarters, and rewards no length."""
    beta: Annotated[float, Field(gt=0, le=100)] | None = None
    """How strongly the answers are held to the base. None means 0.1 (Rafailov et al. 2023, section 6; TRL's default for ipo too),
    and 2.0 for simpo (Meng et al. 2024, table 8), where it scales the mean log-probability of a token."""
    simpo_gamma: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Of simpo: by how much the chosen answer's reward shall be the higher; half of beta (ibid., section 4)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Of sigmoid: the share of pairs that are believed to be the wrong way round, allowed for without bias (Chowdhury et al.
    2024, TRL's loss `robust`)."""

    @property
    def needs_reference(self) -> bool:
        return self.loss != "simpo"

    @model_validator(mode="after")
    def _smooths_its_own_loss(self) -> "DpoMethod":
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(f"label_smoothing belongs to the loss sigmoid, not to {self.loss}")
        return self


class KtoMethod(Method):
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024): answers that were found good or bad, without pairs."""

    formats: ClassVar[frozenset[str]] = frozenset({"kto"})
    """Those that have an answer and a verdict on it."""

    type: Literal["kto"] = "kto"
    """The method."""
    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """How strongly the answers are held to the base (ibid., section 4.2)."""
    desirable_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of a good answer's loss. Where good and bad ones are not equally many, choose the weights so that
    weight times number is equal, up to a third more for the good ones (ibid., equation 9)."""
    undesirable_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of a bad answer's loss."""

    @property
    def needs_reference(self) -> bool:
        return True

    @model_validator(mode="after")
    def _has_rows_to_mismatch(self) -> "KtoMethod":
        if self.micro_batch_size == 1 or self.batch_size == 1:
            raise ValueError("kto needs micro batches of two rows at least: each prompt also meets the answer of another row")
        return self


class OrpoMethod(PairMethod):
    """Odds ratio preference optimization (Hong et al. 2024): learns the chosen answers and to prefer them, with no reference."""

    type: Literal["orpo"] = "orpo"
    """The method."""
    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Weight of the preference beside the supervised loss; lambda in the paper (ibid., section 5.2)."""


class RewardMethod(PairMethod):
    """A reward model (Bradley and Terry 1952; Ouyang et al. 2022): one number for an answer, the higher the better."""

    type: Literal["reward"] = "reward"
    """The method."""
    center_rewards_coefficient: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Holds the rewards of a pair around 0, so that those of different prompts compare (Eisenstein et al. 2023, equation 2; the
    value is TRL's advice)."""


METHODS: dict[str, type[Method]] = {
    "sft": SftMethod, "dpo": DpoMethod, "kto": KtoMethod, "orpo": OrpoMethod, "reward": RewardMethod,
}
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
