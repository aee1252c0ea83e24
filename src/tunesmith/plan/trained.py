"""What trains on a base, as numbers: from a recipe's adapter to parameters, rank and layers. No torch."""

from typing import NamedTuple

from tunesmith.plan.shapes import Shape
from tunesmith.recipes.adapter import Adapter, FullAdapter, LoraAdapter, PrefixAdapter, PTuningAdapter


class Trained(NamedTuple):
    """What trains."""

    parameters: int
    rank: int | None
    """Of a LoRA; 0 for soft prompts; None when all weights train."""
    adapted: int
    """Adapted linear layers of one block."""
    dropped: int = 0
    """Widths of their inputs together, where each drops some of its own; 0 without dropout."""


def trained(shape: Shape, adapter: Adapter) -> Trained:
    """Raises InvalidRequest for layers that the base does not have."""
    if isinstance(adapter, FullAdapter):
        return Trained(shape.num_parameters, None, 0)
    if isinstance(adapter, LoraAdapter):
        layers = shape.adapted(adapter.targets)
        lengths = shape.num_layers * sum(each.outputs for each in layers) if adapter.use_dora else 0
        dropped = sum(each.inputs for each in layers) if adapter.dropout else 0
        return Trained(shape.lora(adapter.rank, adapter.targets) + lengths, adapter.rank, len(layers), dropped)
    return Trained(_soft(shape, adapter), 0, 0)


def _soft(shape: Shape, adapter: Adapter) -> int:
    """Embeddings of the virtual tokens; for a prefix their keys and values; for p-tuning the network that computes them as
    well."""
    if isinstance(adapter, PrefixAdapter):
        return adapter.num_virtual * shape.num_layers * 2 * shape.num_kv_heads * shape.head_dim
    tokens = adapter.num_virtual * shape.hidden
    if isinstance(adapter, PTuningAdapter):
        width = adapter.encoder_hidden_size or shape.hidden
        return tokens + (shape.hidden * width + width) + (width * width + width) + (width * shape.hidden + shape.hidden)
    return tokens
