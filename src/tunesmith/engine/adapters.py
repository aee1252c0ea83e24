"""LoRA adapters on one frozen model, loaded and dropped while it runs, mixed in one batch. Knows no requests.

A target layer is wrapped once. Its update is computed as training does, B(A(x)) * scaling in the adapter's own dtype, for the
rows of the batch that use that adapter; rows of the base are not touched. Adapters are told apart by serial numbers, which
are never used again, so a name that is loaded anew cannot meet an older adapter's rows.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import WEIGHTS, AdapterInfo

PREFIX = "base_model.model."
"""PEFT writes it before the names of the base's layers."""


class Group(NamedTuple):
    """Rows of a batch that use one adapter; `rows` None means all of them."""

    serial: int
    rows: torch.Tensor | None


@dataclass
class Grouping:
    """How the rows of the current step divide into adapters; set before each forward, read by every wrapped layer."""

    groups: list[Group] = field(default_factory=list)

    def set(self, adapters: list[int | None], device: torch.device) -> None:
        """`adapters[i]` is the serial of row i's adapter."""
        rows: defaultdict[int, list[int]] = defaultdict(list)
        for row, serial in enumerate(adapters):
            if serial is not None:
                rows[serial].append(row)
        self.groups = [
            Group(serial, None if len(members) == len(adapters) else torch.tensor(members, device=device))
            for serial, members in rows.items()
        ]


class Update(NamedTuple):
    """One adapter's part of one layer."""

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[out, rank]"""
    scaling: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        return linear(linear(x.to(self.a.dtype), self.a), self.b) * self.scaling


class LoraLayer(torch.nn.Module):
    """A base's linear layer with any number of updates."""

    def __init__(self, base: torch.nn.Module, grouping: Grouping):
        super().__init__()
        self.base = base
        self.grouping = grouping
        self.updates: dict[int, Update] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base(x)
        for serial, rows in self.grouping.groups:
            update = self.updates.get(serial)
            if update is None:
                continue
            if rows is None:
                y = y + update(x).to(y.dtype)
            else:
                y.index_add_(0, rows, update(x[rows]).to(y.dtype))
        return y


class Adapters:
    """The adapters of one model."""

    def __init__(self, model: torch.nn.Module, base_revision: str, quantization: str):
        self.grouping = Grouping()
        self._model = model
        self._base_revision = base_revision
        self._quantization = quantization
        self._next = 1

    def add(self, info: AdapterInfo) -> int:
        """Puts an adapter on the model; its serial number. Raises InvalidRequest when it was not made for this base."""
        self._check(info)
        device = next(self._model.parameters()).device
        tensors = load_file(Path(info.path) / WEIGHTS, device=str(device))
        parts: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            layer, _, rest = name.removeprefix(PREFIX).partition(".lora_")
            parts[layer][rest.partition(".")[0]] = tensor
        layers = {name: self._layer(name, info) for name in parts}
        serial, self._next = self._next, self._next + 1
        for name, layer in layers.items():
            layer.updates[serial] = Update(parts[name]["A"], parts[name]["B"], info.scaling)
        return serial

    def remove(self, serial: int) -> None:
        for module in self._model.modules():
            if isinstance(module, LoraLayer):
                module.updates.pop(serial, None)

    def _check(self, info: AdapterInfo) -> None:
        if info.base_revision != self._base_revision:
            raise InvalidRequest(
                f"The adapter in {info.path} was trained on another revision of {info.base}.",
                hint="Serve the base that it was trained on, or train it again.", code="adapter_not_supported",
            )
        if info.quantization != self._quantization:
            raise InvalidRequest(
                f"The adapter in {info.path} was trained on {info.quantization}, and this engine serves {self._quantization}.",
                hint="An adapter is served on the precision that it was trained on.", code="adapter_not_supported",
            )

    def _layer(self, name: str, info: AdapterInfo) -> LoraLayer:
        """The layer `name`, wrapped if it is not yet."""
        parent_name, _, leaf = name.rpartition(".")
        try:
            parent = self._model.get_submodule(parent_name)
            layer = parent.get_submodule(leaf)
        except AttributeError as error:
            raise InvalidRequest(f"The adapter in {info.path} adapts {name}, which the base does not have.") from error
        if not isinstance(layer, LoraLayer):
            layer = LoraLayer(layer, self.grouping)
            parent.register_module(leaf, layer)
        return layer
