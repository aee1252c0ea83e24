"""Builds a runner: our own forward where it is known to agree with transformers, else the transformers module.

transformers takes seconds to import. Where a record says that the base was compared before, by the same code and libraries, it
is not imported at all.
"""

import importlib
from pathlib import Path
from typing import Any, Literal

import torch

from tunesmith.engine.lean import Lean
from tunesmith.engine.lean_neox import LeanNeoX
from tunesmith.engine.lean_parts import Forward
from tunesmith.engine.parity import TOLERANCE, record_path, write_record
from tunesmith.engine.runner import Runner
from tunesmith.models.catalog import Base
from tunesmith.models.shelf import read_json
from tunesmith.models.weights import read_weights
from tunesmith.types import Quantization

Quantize = Literal["int8"]
FORWARDS: tuple[Forward, ...] = (Lean, LeanNeoX)
"""Our own, one for each family."""


def build_runner(
    base: Base,
    quantization: Quantization,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: Quantize | None = None,
    parity_dir: Path | None = None,
) -> Runner:
    """A runner that is ready. `quantize` makes int8 of the weights at load; adapters of an unquantized base fit it.

    `parity_dir` is where records of comparisons are kept; None keeps none. Raises InvalidRequest for files that hold no model.
    """
    config = read_json(base.folder / "config.json")
    fitting = FORWARDS if device == "cpu" and dtype == torch.float32 else ()
    forward = next((forward for forward in fitting if forward.fits(config)), None)
    is_recorded = parity_dir is not None and quantization == "none"
    record = record_path(parity_dir, base.revision) if is_recorded and forward is not None else None
    if forward is not None and record is not None and record.is_file():
        lean = forward(config, read_weights(base, dtype=dtype), torch.device(device), quantize=quantize)
        return Runner(base, lean, "lean", quantization)
    # The one place that imports transformers, and only on this way.
    compare: Any = importlib.import_module("tunesmith.engine.compare")
    module = compare.load_module(base, quantization, dtype, device)
    if forward is not None:
        found = compare.lean_difference(forward, base, config, module)
        if found <= TOLERANCE:
            if record is not None:
                write_record(record, base.id, found)
            lean = forward(config, compare.weights_of(module), torch.device(device), quantize=quantize)
            return Runner(base, lean, "lean", quantization)
    return compare.module_runner(base, module, quantization, quantize)
