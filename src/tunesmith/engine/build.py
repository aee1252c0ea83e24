"""Builds a runner: our own forward where it is known to agree with transformers, else the transformers module.

transformers takes seconds to import. Where a record says that the base was compared before, by the same code and libraries, it
is not imported at all.
"""

import importlib
from pathlib import Path
from typing import Any, Literal

import torch

from tunesmith.engine.lean import Lean, is_lean
from tunesmith.engine.parity import TOLERANCE, record_path, write_record
from tunesmith.engine.runner import Runner
from tunesmith.models.catalog import Base
from tunesmith.models.shelf import read_json
from tunesmith.models.weights import read_weights
from tunesmith.types import Quantization

Quantize = Literal["int8"]


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
    can_lean = is_lean(config) and device == "cpu" and dtype == torch.float32
    record = record_path(parity_dir, base.revision) if parity_dir is not None and can_lean and quantization == "none" else None
    if record is not None and record.is_file():
        lean = Lean(config, read_weights(base, dtype=dtype), torch.device(device), quantize=quantize)
        return Runner(base, lean, "lean", quantization)
    # The one place that imports transformers, and only on this way.
    compare: Any = importlib.import_module("tunesmith.engine.compare")
    module = compare.load_module(base, quantization, dtype, device)
    if can_lean:
        found = compare.lean_difference(base, config, module)
        if found <= TOLERANCE:
            if record is not None:
                write_record(record, base.id, found)
            lean = Lean(config, compare.weights_of(module), torch.device(device), quantize=quantize)
            return Runner(base, lean, "lean", quantization)
    return compare.module_runner(base, module, quantization, quantize)
