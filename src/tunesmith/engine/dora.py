"""DoRA (Liu et al. 2024): y = magnitude / |W + s B A| * (W x + s B A x) + bias, lengths taken over each output's weights.

So a layer's own output is multiplied by a gain for each output, which is computed once, when the adapter is loaded.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from tunesmith.engine.matmul import Weight, matrix


class Frozen(NamedTuple):
    """The base's own numbers of a layer."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor | None


class Gain(NamedTuple):
    """y * scale + shift is what the layer's own output, bias included, becomes."""

    scale_O: torch.Tensor
    shift_O: torch.Tensor


def gain(frozen: Frozen, a_RI: torch.Tensor, b_OR: torch.Tensor, scaling: float, magnitude_O: torch.Tensor) -> Gain:
    """In the weight's precision, as training computes the lengths."""
    weight_OI, bias_O = frozen
    changed_OI = weight_OI + scaling * (b_OR @ a_RI).to(weight_OI.dtype)
    scale_O = (magnitude_O / torch.linalg.norm(changed_OI, dim=1)).float()
    return Gain(scale_O, torch.zeros_like(scale_O) if bias_O is None else bias_O.float() * (1 - scale_O))


def frozen_rows(weight: Weight, bias_O: torch.Tensor | None, rows: slice, shape: tuple[int, int]) -> Callable[[], Frozen]:
    """The numbers of some outputs of a weight, read when they are wanted. `shape` is (out, in) of the rows."""
    return lambda: Frozen(matrix(weight, shape[1])[rows], None if bias_O is None else bias_O[rows])


def frozen_module(layer: torch.nn.Module) -> Frozen:
    """Those of a linear layer of a transformers module; one that is kept in fewer bits is read by multiplying by one."""
    bias_O: torch.Tensor | None = layer.bias
    if type(layer) is torch.nn.Linear:
        return Frozen(layer.weight.detach(), bias_O)
    device, dtype = next(((each.device, each.dtype) for each in [bias_O] if each is not None), (None, None))
    weight_IO = layer(torch.eye(int(layer.in_features), device=device, dtype=dtype))
    return Frozen((weight_IO if bias_O is None else weight_IO - bias_O).t(), bias_O)
