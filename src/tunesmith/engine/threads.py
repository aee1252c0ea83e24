"""How many CPU threads a step is computed with: one for few tokens, all for many. Which is which is measured at load.

An operation that is divided among threads ends when the last of them has woken, worked and told so. For the few rows of a decode
step that takes longer than the work: 32 rows of the tiny base took 11.5 ms with one thread and 20 ms with two (two shared
virtual cores, threads that wait passively).
"""

import statistics
import time
from collections.abc import Callable

import torch

from tunesmith.engine.matmul import Weight

SIZES = (8, 32, 128, 512)
"""Tokens of a step that are tried."""
REPEATS = 3
WIDTH = 3
"""Outputs for each input of the product that is measured: about what a decoder layer's largest has."""
MAX_WIDTH = 2_048
"""A wider base is measured at this width: there the work is more than the waiting."""


def serial_tokens(width: int, threads: int, make: Callable[[torch.Tensor], Weight]) -> int:
    """Up to how many tokens one thread is faster than `threads`; 0 when it never is. `width` is the base's hidden size, `make`
    turns a float32 weight [out, in] into what the base computes with, `int8_weight` for one.

    Measured in turns on one product, with the machine as busy as it is now. Leaves the number of threads at `threads`.
    """
    width = min(width, MAX_WIDTH)
    product = make(torch.zeros(WIDTH * width, width))
    found = 0
    for size in SIZES if threads > 1 else ():
        x_NI = torch.zeros(size, width)
        taken: dict[int, list[float]] = {1: [], threads: []}
        for repeat in range(REPEATS + 1):
            for number in taken:
                torch.set_num_threads(number)
                seconds = _seconds(x_NI, product)
                if repeat:
                    taken[number].append(seconds)
        if statistics.median(taken[threads]) < statistics.median(taken[1]):
            break
        found = size
    torch.set_num_threads(threads)
    return found


def _seconds(x_NI: torch.Tensor, product: Weight) -> float:
    start = time.perf_counter()
    product(x_NI)
    return time.perf_counter() - start


class Threads:
    """OpenMP keeps the number for each thread that calls it: what is used in one thread must be said again in another."""

    def __init__(self, most: int, serial: int):
        self._most = most
        self._serial = serial
        self._now: int | None = None

    def set_most(self, number: int) -> None:
        """From the next step on; for a training run that begins or ends beside the engine."""
        self._most = number

    def forget(self) -> None:
        """The next `use` comes from another thread."""
        self._now = None

    def use(self, num_tokens: int) -> None:
        """Before a step of so many tokens."""
        number = 1 if num_tokens <= self._serial else self._most
        if number != self._now:
            torch.set_num_threads(number)
            self._now = number
