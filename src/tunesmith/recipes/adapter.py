"""What is trained on the frozen base: the kinds of adapter, each with its numbers. No torch, no paths.

`ADAPTERS` is the table of what there is; `train/adapters.py` makes of each what PEFT trains.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from tunesmith.recipes.method import Part, by_type


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


ADAPTERS: dict[str, type[Adapter]] = {"lora": LoraAdapter}
"""A recipe's `adapter.type` -> its fields. The first is the default."""

AnyAdapter = Annotated[SerializeAsAny[Adapter], BeforeValidator(lambda value: by_type(value, ADAPTERS, "adapter kind"))]
