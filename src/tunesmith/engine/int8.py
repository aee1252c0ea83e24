"""Weights as int8 with one scale for each output (symmetric, made at load); activations stay as they are.

Few rows go through torch's own product for such weights, which reads a quarter of the bytes; many rows through the weight
unpacked in float32, piece by piece. A wide weight is multiplied in whole numbers instead, where the processor
has instructions for it (VNNI). Knows no adapters: they stay in float32 beside it.
"""

import torch

from tunesmith.engine.matmul import Weight

PACKED_ROWS = 48
"""Up to so many rows the packed product is faster (measured on AVX-512 without bf16): it grows with the rows, unpacking does
not."""
PIECE = 1 << 20
"""Numbers that are unpacked at once: they stay in the processor's cache, and memory does not grow."""
WIDE = 1 << 20
"""Weights of so many numbers or more are multiplied in whole numbers. Milliseconds of 1 / 4 / 8 / 16 rows, one thread: packed
0.9 / 1.0 / 2.0 / 3.4 for 3072 x 1024 and in whole numbers 1.0 / 0.9 / 1.0 / 1.4; for 1024 x 1024 0.3 / 0.4 / 0.7 / 1.0 and
0.5 / 0.5 / 0.6 / 0.7: each call of it costs a tenth of a millisecond and more."""
LARGEST = 32_512
"""What the largest number of a row becomes: 127 * 256, so that its upper byte, rounded, still fits."""

try:
    _packed_product = torch.ops.aten._weight_int8pack_mm.default
except AttributeError:
    # A private operation; without it all rows go through the unpacked weight.
    _packed_product = None

try:
    _whole_product = torch.ops.onednn.qlinear_pointwise.default if torch.cpu._is_vnni_supported() else None
except AttributeError:
    # Private as well; without it, or without VNNI, wide weights are packed like the others.
    _whole_product = None


def int8_weight(weight_OI: torch.Tensor) -> Weight:
    """x W^T, by what is fastest for a weight of this size."""
    is_wide = weight_OI.numel() >= WIDE and weight_OI.device.type == "cpu" and _whole_product is not None
    return WideInt8Weight(weight_OI) if is_wide else Int8Weight(weight_OI)


def rounded(weight_OI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight in int8 and the scale of each output."""
    scales = (weight_OI.float().abs().amax(1) / 127).clamp(min=1e-12)
    # The packed product knows bfloat16 scales only; all ways use the same ones, rounded before the weights are.
    scales_O = scales.bfloat16()
    return (weight_OI.float() / scales_O.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales_O


class WideInt8Weight:
    """x W^T in whole numbers: each row of x as 16 bits with one scale, its upper and its lower bytes as two rows of the product.

    Sixteen bits keep what bfloat16 rounds away: the product is nearer to float32's than the packed one.
    """

    def __init__(self, weight_OI: torch.Tensor):
        whole_OI, scales_O = rounded(weight_OI)
        self._weight = torch.ops.onednn.qlinear_prepack(whole_OI, None)
        self._scales_O = scales_O.float() / LARGEST
        self._zeros_O = torch.zeros(len(scales_O), dtype=torch.int32)

    def __call__(self, x_NI: torch.Tensor) -> torch.Tensor:
        count = len(x_NI)
        largest_N1 = x_NI.abs().amax(1, keepdim=True).clamp_(min=1e-30)
        # Both bytes are stored 128 too large, for the product takes them from 0 to 255; a half more rounds.
        bits_NI = (x_NI * (LARGEST / largest_N1)).add_(128 * 256 + 128.5).to(torch.int32)
        bytes_MI = torch.empty(2 * count, x_NI.shape[1], dtype=torch.uint8)
        torch.bitwise_right_shift(bits_NI, 8, out=bytes_MI[:count])
        bytes_MI[count:] = bits_NI
        y_MO = _whole_product(
            bytes_MI, 1.0, 128, self._weight, self._scales_O, self._zeros_O, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.add(y_MO[count:], y_MO[:count], alpha=256).mul_(largest_N1)


class Int8Weight:
    """x W^T, packed or unpacked."""

    def __init__(self, weight_OI: torch.Tensor):
        self._weight_OI, self._scales_O = rounded(weight_OI)
        self.shape = self._weight_OI.shape

    def __call__(self, x_NI: torch.Tensor) -> torch.Tensor:
        if _packed_product is not None and len(x_NI) <= PACKED_ROWS and x_NI.device.type == "cpu":
            return _packed_product(x_NI.bfloat16(), self._weight_OI, self._scales_O).to(x_NI.dtype)
        y_NO = x_NI.new_empty(len(x_NI), self.shape[0])
        outputs = max(1, PIECE // self.shape[1])
        for first in range(0, self.shape[0], outputs):
            piece = self._weight_OI[first : first + outputs].to(x_NI.dtype)
            torch.mm(x_NI, piece.t(), out=y_NO[:, first : first + outputs])
        return y_NO.mul_(self._scales_O.to(x_NI.dtype))


class Int8Linear(torch.nn.Module):
    """Stands in for a linear layer of a transformers module."""

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._weight = int8_weight(linear.weight.detach())
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._weight(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def quantize_linears(model: torch.nn.Module) -> None:
    """Puts int8 layers in place of all linear ones, the head included."""
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear:
            model.set_submodule(name, Int8Linear(module))
