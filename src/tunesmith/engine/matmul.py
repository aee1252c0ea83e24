"""x W^T for a weight that stays: which way of holding it is fastest here is measured when it is loaded."""

import statistics
import time
from collections.abc import Callable

import torch

ROWS = 8
"""Rows that the measurement multiplies: about what a server decodes at once."""
REPEATS = 5
MAX_MEASURED = 1 << 26
"""Larger weights (numbers) are not measured: their transposed copy would cost too much memory and time."""

Weight = Callable[[torch.Tensor], torch.Tensor]

_known: dict[tuple[int, int, int, torch.dtype, str], bool] = {}
"""Was the transposed one faster, for (out, in, threads, dtype, device)?"""


class Plain:
    """As it is stored, [out, in]."""

    def __init__(self, weight_OI: torch.Tensor):
        self.weight_OI = weight_OI

    def __call__(self, x_NI: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x_NI, self.weight_OI)


class Transposed:
    """A contiguous copy [in, out]."""

    def __init__(self, weight_OI: torch.Tensor):
        self.weight_IO = weight_OI.t().contiguous()

    def __call__(self, x_NI: torch.Tensor) -> torch.Tensor:
        return x_NI @ self.weight_IO


def matrix(weight: Weight, width: int) -> torch.Tensor:
    """[out, in] of any weight; one that does not keep it is read by multiplying by one."""
    if isinstance(weight, Plain):
        return weight.weight_OI
    return weight.weight_IO.t() if isinstance(weight, Transposed) else weight(torch.eye(width)).t()


def fastest(weight_OI: torch.Tensor) -> Weight:
    """The faster one; layers of one shape share the measurement."""
    key = (*weight_OI.shape, torch.get_num_threads(), weight_OI.dtype, weight_OI.device.type)
    if weight_OI.device.type != "cpu" or (key not in _known and weight_OI.numel() > MAX_MEASURED):
        return Plain(weight_OI)
    if key not in _known:
        x_NI = torch.zeros(ROWS, weight_OI.shape[1], dtype=weight_OI.dtype)
        _known[key] = _seconds(Transposed(weight_OI), x_NI) < _seconds(Plain(weight_OI), x_NI)
    return Transposed(weight_OI) if _known[key] else Plain(weight_OI)


def _seconds(weight: Weight, x_NI: torch.Tensor) -> float:
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        weight(x_NI)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
