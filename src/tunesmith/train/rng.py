"""States of every random generator that training may draw from, as tensors and JSON: saved in checkpoints, put back on resume."""

import random
from typing import Any, NamedTuple

import numpy
import torch


class RandomStates(NamedTuple):
    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]
    """JSON-like."""


def capture() -> RandomStates:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype("int64"))}
    if torch.cuda.is_available():
        tensors |= {f"cuda_{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    python = {"version": version, "words": list(words), "gauss": gauss}
    return RandomStates(tensors, {"python": python, "numpy": [name, int(position), int(has_gauss), float(cached)]})


def restore(states: RandomStates) -> None:
    """Puts the states back. A GPU's is put back only where there is that GPU."""
    python, (name, position, has_gauss, cached) = states.values["python"], states.values["numpy"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
    numpy.random.set_state((name, states.tensors["numpy"].numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(states.tensors["torch"])
    for number in range(torch.cuda.device_count()):
        if f"cuda_{number}" in states.tensors:
            torch.cuda.set_rng_state(states.tensors[f"cuda_{number}"], number)
