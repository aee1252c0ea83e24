"""The most tensor bytes alive at one moment, on any device, counted as torch makes and frees them. Knows no model and no plan.

On a GPU the allocator tells the same (`max_memory_allocated`); a CPU has none that does, and resident memory counts libraries
too.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Within it, `peak` is the most bytes that were alive at once: those of `known` tensors and all that operations returned.

    What an operation holds within itself (a kernel's scratch) is not seen. Numbers do not change by being watched.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        for tensor in known:
            self._add(tensor)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or not size:
            return

        def gone(_: Any) -> None:
            if self._alive.pop(key, None) is not None:
                self.now -= size

        self._alive[key] = (weakref.ref(storage, gone), size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return made


def held_by(model: torch.nn.Module) -> list[torch.Tensor]:
    """The tensors that `model` holds: parameters, their gradients, buffers, and what quantized layers keep beside their
    weights."""
    found: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    found += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for module in model.modules():
        weight = getattr(module, "weight", None)
        states = [getattr(weight, "quant_state", None)]
        while states:
            state = states.pop()
            for value in vars(state).values() if state is not None else ():
                if isinstance(value, torch.Tensor):
                    found.append(value)
                elif type(value).__name__ == "QuantState":
                    states.append(value)
    return found
