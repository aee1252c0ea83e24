"""A base's tensors as they lie in its safetensors files. Needs torch, but no model code: for what computes by itself.

Beside `loader` this is the only place that reads a base's weights; both read the files that `shelf` names, never pickle.
"""

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tunesmith.errors import InvalidRequest
from tunesmith.models.catalog import Base
from tunesmith.models.shelf import weight_names


def read_weights(base: Base, *, dtype: torch.dtype, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Name -> tensor, in `dtype`. Raises InvalidRequest when a file is damaged."""
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(weight_names(base.folder)):
        try:
            tensors |= load_file(base.folder / name, device=device)
        except (OSError, SafetensorError) as error:
            raise InvalidRequest(f"{base.id} cannot be loaded: {name}: {error}.", hint="Get its files again.") from error
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def in_dtype(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The same in another precision; names that share a tensor, as a head and its embedding may, go on sharing one."""
    made: dict[int, torch.Tensor] = {}
    return {name: made.setdefault(tensor.data_ptr(), tensor.to(dtype)) for name, tensor in tensors.items()}
