"""Weights as int8 with one scale for each output (symmetric, made at load); activations stay as they are.

Few rows go through torch's own product for such weights, which reads a quarter of the bytes; many rows through the weight
unpacked in float32, piece by piece. Knows no adapters: they stay in float32 beside it.
"""

import torch

PACKED_ROWS = 48
"""Up to so many rows the packed product is faster (measured on AVX-512 without bf16): it grows with the rows, unpacking does
not."""
PIECE = 1 << 20
"""Numbers that are unpacked at once: they stay in the processor's cache, and memory does not grow."""

try:
    _packed_product = torch.ops.aten._weight_int8pack_mm.default
except AttributeError:
    # A private operation; without it all rows go through the unpacked weight.
    _packed_product = None


class Int8Weight:
    """x W^T."""

    def __init__(self, weight_OI: torch.Tensor):
        scales = (weight_OI.float().abs().amax(1) / 127).clamp(min=1e-12)
        # The packed product knows bfloat16 scales only; both ways use the same ones, rounded before the weights are.
        self._scales_O = scales.bfloat16()
        self._weight_OI = (weight_OI.float() / self._scales_O.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8)
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
        self._weight = Int8Weight(linear.weight.detach())
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._weight(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def quantize_linears(model: torch.nn.Module) -> None:
    """Puts int8 layers in place of all linear ones, the head included."""
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear:
            model.set_submodule(name, Int8Linear(module))
