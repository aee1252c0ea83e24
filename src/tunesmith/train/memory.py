"""Recognises that memory has run out, on a GPU or a CPU, and says what to do. What can be tried smaller, `trainer.py` tries.

Where a system gives out more memory than it has, it kills instead, and nobody here is asked: then a new worker goes on.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tunesmith.errors import TrainingFailed

SAID = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "bad_alloc", "could not create a memory")
"""What RuntimeErrors of torch's and oneDNN's allocators say."""
ERRORS = (torch.OutOfMemoryError, MemoryError, RuntimeError)
"""Those among which `is_out_of_memory` tells."""
HINT = (
    'Set compute.recompute = "all", quantization = "nf4", a smaller method.max_length or adapter.rank, or take a smaller base '
    "(`tunesmith plan` says what fits); the checkpoints stay."
)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in SAID)


def free() -> None:
    """Gives back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def told() -> Iterator[None]:
    """Raises TrainingFailed with advice where memory runs out and nothing smaller can be tried."""
    try:
        yield
    except ERRORS as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingFailed("The memory does not suffice.", hint=HINT, code="out_of_memory") from error
