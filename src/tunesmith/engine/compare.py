"""The transformers module of a base: loaded, compared with our own forward, or put to work itself."""

from collections.abc import Mapping
from typing import Any

import torch

from tunesmith.engine.int8 import quantize_linears
from tunesmith.engine.lean_parts import Forward
from tunesmith.engine.module import UNFIT, fitting, reference
from tunesmith.engine.parity import difference
from tunesmith.engine.runner import Runner
from tunesmith.engine.single import Single
from tunesmith.models.catalog import Base
from tunesmith.models.int8 import Int8Linear
from tunesmith.models.loader import is_nf4, load_base
from tunesmith.types import Quantization

UNPACK_BYTES = 4 << 30
"""NF4 and int8 layers that take less than this in float32 are unpacked once, on a CPU."""


def load_module(base: Base, quantization: Quantization, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """The module; on a CPU with its NF4 and int8 layers unpacked."""
    module = load_base(base, quantization, dtype=dtype, device=device)
    if device == "cpu":
        unpack(module)
    return module


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def lean_difference(forward: Forward, base: Base, config: Mapping[str, Any], module: torch.nn.Module) -> float:
    """How far our own forward is from the module; infinite where it cannot compute this base."""
    if any(is_packed(layer) for layer in module.modules()):
        return float("inf")
    try:
        lean = forward(config, weights_of(module), module.device)
        sizes = [window for window in lean.windows if window is not None]
        return difference(lean, reference(module), base.max_positions, min(sizes, default=None))
    except UNFIT:
        return float("inf")


def module_runner(base: Base, module: torch.nn.Module, quantization: Quantization, quantize: str | None) -> Runner:
    """Over our cache if that agrees with none, else one request at a time."""
    fit = fitting(module, base.max_positions)
    if quantize == "int8":
        quantize_linears(module)
    if fit is not None:
        return Runner(base, fit, "module", quantization)
    return Runner(base, Single(module), "single", quantization)


def unpack(model: torch.nn.Module) -> None:
    """Puts the same numbers in float32 in place of NF4 or int8 layers, if that is not too much memory.

    A CPU multiplies by such a weight by unpacking it at each step; unpacked once, the results are the same and come sooner.
    """
    packed = {name: module for name, module in model.named_modules() if is_packed(module)}
    if sum(module.in_features * module.out_features for module in packed.values()) * 4 > UNPACK_BYTES:
        return
    for name, module in packed.items():
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(unpacked(module), requires_grad=False)
        plain.bias = module.bias
        model.set_submodule(name, plain)


def is_packed(module: torch.nn.Module) -> bool:
    return isinstance(module, Int8Linear) or is_nf4(module)


def unpacked(module: torch.nn.Module) -> torch.Tensor:
    """[out, in] the weight that a layer multiplies by; of NF4 bitsandbytes' own operations, as its backward pass has them."""
    if isinstance(module, Int8Linear):
        return module.weight
    ops, state = torch.ops.bitsandbytes, module.weight.quant_state
    absmax = state.absmax
    if state.nested:
        inner = state.state2
        absmax = ops.dequantize_blockwise.default(absmax, inner.absmax, inner.code, inner.blocksize, inner.dtype) + state.offset
    weight: torch.Tensor = ops.dequantize_4bit.default(
        module.weight.data, absmax.float(), state.blocksize, state.quant_type, state.shape, state.dtype
    )
    return weight
