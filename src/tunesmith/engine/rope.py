"""Rotary position embeddings as complex numbers, read from a base's config.json. Knows no layers.

Su et al. 2021: a pair of numbers is turned by an angle that grows with the position, each pair at a frequency of its own.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

KINDS = {"default", "linear", "llama3"}
"""Values of `rope_type` that are computed here."""


def read_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 writes `rope_parameters`; files from before have `rope_theta` and `rope_scaling`."""
    old = config.get("rope_scaling") or {}
    told = {"rope_theta": config.get("rope_theta", 10_000.0), **old, **(config.get("rope_parameters") or {})}
    return told | {"rope_type": told.get("rope_type", told.get("type", "default"))}


def rope_turns(rope: Mapping[str, Any], size: int, num_positions: int) -> torch.Tensor:
    """[positions, size / 2] the complex numbers that turn `size` numbers of a head by each position's angles."""
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float) / size)
    if rope["rope_type"] == "linear":
        frequencies = frequencies / rope["factor"]
    elif rope["rope_type"] == "llama3":
        frequencies = _llama3(frequencies, rope)
    angles = torch.arange(num_positions).float()[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def _llama3(frequencies: torch.Tensor, rope: Mapping[str, Any]) -> torch.Tensor:
    """Llama 3.1's: long waves are stretched by `factor`, short ones are not, those between partly."""
    wavelengths = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = ((rope["original_max_position_embeddings"] / wavelengths - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / rope["factor"] + kept * frequencies
