"""A function over many items in several processes, in order, with a bounded number of items under way. Knows no rows.

The processes are forked, so they have the function and all that it knows at once; it may not use a GPU or threads of torch.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

SERIAL = 2048
"""Items that are done here first; a fork for fewer would not pay."""
CHUNK = 128
AHEAD = 3
"""Chunks for each process that are sent before the first of them is asked for."""

_function: list[Callable[[Any], Any]] = []
"""Of a forked process: the one function that it was forked for."""


def mapped(function: Callable[[T], R], items: Iterable[T], *, processes: int | None = None) -> Iterator[R]:
    """`function` of each item, in order; by the number of cores that may be used, unless said otherwise."""
    source = iter(items)
    yield from map(function, islice(source, SERIAL))
    size = processes if processes is not None else len(os.sched_getaffinity(0))
    first = list(islice(source, CHUNK))
    if not first or size < 2:
        yield from map(function, first)
        yield from map(function, source)
        return
    with multiprocessing.get_context("fork").Pool(size, _begin, (function,)) as pool:
        waiting = deque([pool.apply_async(_run, (first,))])
        while waiting:
            while len(waiting) < AHEAD * size and (chunk := list(islice(source, CHUNK))):
                waiting.append(pool.apply_async(_run, (chunk,)))
            yield from waiting.popleft().get()


def _begin(function: Callable[[Any], Any]) -> None:
    _function.append(function)


def _run(chunk: list[Any]) -> list[Any]:
    return [_function[0](item) for item in chunk]
