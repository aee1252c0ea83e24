"""Adapters on one frozen model, loaded and dropped while it runs, mixed in one batch. Knows no requests.

A LoRA's update of a layer, B(A(x)) * scaling, is computed for the tokens of the step that use it (a DoRA's with a gain on the
layer's own output, `dora.py`); tokens of the base are not touched. Adapters are told apart by serial numbers, which are never
used again, so a name that is loaded anew cannot meet an older adapter's rows. A soft prompt is keys and values, computed when it
is loaded.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from tunesmith.engine.batch import Group
from tunesmith.engine.cache import Pairs
from tunesmith.engine.dora import Frozen, Gain, gain
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import HEAD, WEIGHTS, AdapterInfo

PREFIX = "base_model.model."
"""PEFT writes it before the names of the base's layers."""

DENSE_TOKENS, DENSE_CELLS = 32, 256
"""Up to so many tokens a step, and so many tokens times adapters, all adapters are multiplied at once and what is not wanted is
masked: calls cost more than numbers there. A decode step of 4 adapters, one thread, milliseconds at once / adapter by adapter:
tiny base, 8 rows 6.6 / 7.0, 16 rows 9.3 / 11.3, 32 rows 10.5 / 11.2; 135M shape, 8 rows 161 / 159, 32 rows 270 / 280."""

Soften = Callable[[AdapterInfo, torch.Tensor], Pairs]
"""Keys and values of a soft prompt, from its stored tensor."""


class Update(NamedTuple):
    """One adapter's part of one layer; of fused layers, block by block."""

    a: torch.Tensor
    """[in, rank]"""
    b: torch.Tensor
    """[rank, out], scaling and gain included"""
    gain: Gain | None = None
    """Of a DoRA: what becomes of the layer's own output."""


class Part(NamedTuple):
    """One adapter's tensors of one layer, as PEFT stores them."""

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[out, rank]"""
    scaling: float
    gain: Gain | None = None


class Grouping:
    """How the tokens of the current step divide into adapters; set before each forward, read by every layer."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.rows: list[tuple[int, torch.Tensor | slice]] = []
        """For padded batches: adapter and its rows."""
        self.num_tokens = 0

    def set(self, groups: list[Group], num_tokens: int) -> None:
        self.groups, self.num_tokens = groups, num_tokens


class Lora:
    """The updates of one linear layer, which may be several layers of the base in one."""

    def __init__(self, grouping: Grouping, out_features: int):
        self._grouping = grouping
        self._out_features = out_features
        self.updates: dict[int, Update] = {}
        self._dense: tuple[list[Group], Update, torch.Tensor] | None = None
        self._num_gains = 0

    def add(self, serial: int, parts: list[tuple[int, Part]]) -> None:
        """`parts` are the adapter's tensors, each with the first of the outputs that it changes."""
        rank = sum(len(part.a) for _, part in parts)
        a = torch.cat([part.a for _, part in parts]).t().contiguous()
        b = a.new_zeros(rank, self._out_features)
        whole = Gain(a.new_ones(self._out_features), a.new_zeros(self._out_features))
        row = 0
        for first, part in parts:
            end = first + len(part.b)
            if part.gain is not None:
                whole.scale_O[first:end], whole.shift_O[first:end] = part.gain
            b[row : row + len(part.a), first:end] = part.b.t() * part.scaling * whole.scale_O[first:end]
            row += len(part.a)
        self.updates[serial] = Update(a, b, whole if any(part.gain is not None for _, part in parts) else None)
        self._num_gains += self.updates[serial].gain is not None

    def remove(self, serial: int) -> None:
        update = self.updates.pop(serial, None)
        self._num_gains -= update is not None and update.gain is not None
        self._dense = None

    def apply(self, y_NO: torch.Tensor, x_NI: torch.Tensor) -> torch.Tensor:
        """Adds to `y`, the layer's own output, in place."""
        groups = self._grouping.groups
        if not groups or not self.updates:
            return y_NO
        tokens = self._grouping.num_tokens
        if len(groups) > 1 and not self._num_gains and tokens <= DENSE_TOKENS and tokens * len(groups) <= DENSE_CELLS:
            (a, b, _), mask = self._all(groups)
            return y_NO.addmm_((x_NI @ a).mul_(mask), b)
        for serial, first, end in groups:
            if update := self.updates.get(serial):
                if update.gain is not None:
                    y_NO[first:end].mul_(update.gain.scale_O).add_(update.gain.shift_O)
                y_NO[first:end].addmm_(x_NI[first:end] @ update.a, update.b)
        return y_NO

    def apply_padded(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The same for [rows, columns, features], in the adapter's own dtype, as training has it."""
        for serial, rows in self._grouping.rows:
            if update := self.updates.get(serial):
                change = x[rows].to(update.a.dtype) @ update.a @ update.b
                if update.gain is not None:
                    change += y[rows] * (update.gain.scale_O - 1) + update.gain.shift_O
                change = change.to(y.dtype)
                if isinstance(rows, slice):
                    y[rows] += change
                else:
                    y.index_add_(0, rows, change)
        return y

    def _all(self, groups: list[Group]) -> tuple[Update, torch.Tensor]:
        """All groups' updates side by side, and which token uses which column. Kept while the groups stay."""
        if self._dense is None or self._dense[0] != groups:
            present = [(group, self.updates[group.adapter]) for group in groups if group.adapter in self.updates]
            empty = next(iter(self.updates.values()))
            a = torch.cat([empty.a[:, :0], *(update.a for _, update in present)], 1)
            b = torch.cat([empty.b[:0], *(update.b for _, update in present)])
            mask = a.new_zeros(self._grouping.num_tokens, a.shape[1])
            column = 0
            for (_, first, end), update in present:
                mask[first:end, column : column + update.a.shape[1]] = 1
                column += update.a.shape[1]
            self._dense = (groups, Update(a, b), mask)
        return self._dense[1], self._dense[2]


class Target(NamedTuple):
    """Where a layer of the base, as PEFT names it, is computed."""

    lora: Lora
    first: int
    """The first of its outputs in a fused layer."""
    shape: tuple[int, int]
    """out, in"""
    frozen: Callable[[], Frozen]
    """The base's own numbers of it, outputs as they are computed."""
    order: torch.Tensor | None = None
    """[out] in which order the outputs are computed; None as they are stored."""


class Adapters:
    """The adapters of one model. `find` gives the target of a name, or None where there is no such linear layer."""

    def __init__(
        self, find: Callable[[str], Target | None], soften: Soften, device: torch.device, base_revision: str, quantization: str
    ):
        self._find = find
        self._soften = soften
        self._device = device
        self._base_revision = base_revision
        self._quantization = quantization
        self._next = 1
        self._loras: dict[int, list[Lora]] = {}
        self._soft_prompts: dict[int, Pairs] = {}
        self._heads: dict[int, torch.Tensor] = {}

    @property
    def soft_prompts(self) -> Mapping[int, Pairs]:
        """By serial number."""
        return self._soft_prompts

    def num_virtual(self, serial: int) -> int:
        """Positions of its soft prompt; 0 for a LoRA."""
        pairs = self._soft_prompts.get(serial)
        return len(pairs[0][0]) if pairs else 0

    def head(self, serial: int | None) -> torch.Tensor | None:
        """[width] of a reward model: times the last hidden state it is the score of a row."""
        return None if serial is None else self._heads.get(serial)

    def add(self, info: AdapterInfo) -> int:
        """Puts an adapter on the model; its serial number. Raises InvalidRequest when it was not made for this base."""
        self._check(info)
        tensors = load_file(Path(info.path) / WEIGHTS, device=str(self._device))
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise _unfit(info, "has weights that are not finite", "Train it again.")
        serial = self._next
        if info.kind == "reward":
            self._heads[serial] = tensors.pop(HEAD)[0].float()
        if info.kind in ("lora", "dora", "reward"):
            self._loras[serial] = self._add_lora(serial, tensors, info)
        else:
            self._soft_prompts[serial] = self._soften(info, tensors["prompt_embeddings"])
        self._next += 1
        return serial

    def remove(self, serial: int) -> None:
        for lora in self._loras.pop(serial, []):
            lora.remove(serial)
        self._soft_prompts.pop(serial, None)
        self._heads.pop(serial, None)

    def _add_lora(self, serial: int, tensors: dict[str, torch.Tensor], info: AdapterInfo) -> list[Lora]:
        halves: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            layer, _, rest = name.removeprefix(PREFIX).partition(".lora_")
            halves[layer][rest.partition(".")[0]] = tensor
        own = dict(info.scalings)
        wanted_tensors = {"A", "B", "magnitude_vector"} if info.kind == "dora" else {"A", "B"}
        wanted: dict[Lora, list[tuple[int, Part]]] = {}
        for name, half in halves.items():
            target = self._find(name)
            if target is None or set(half) != wanted_tensors or (len(half["B"]), half["A"].shape[1]) != target.shape:
                raise _unfit(info, f"adapts {name}, which the base does not have as a linear layer of that size",
                             "Serve the base that it was trained on.")
            part = _part(target, half, own.get(name, info.scaling))
            wanted.setdefault(target.lora, []).append((target.first, part))
        for lora, parts in wanted.items():
            lora.add(serial, parts)
        return list(wanted)

    def _check(self, info: AdapterInfo) -> None:
        if info.base_revision != self._base_revision:
            raise _unfit(info, f"was trained on another revision of {info.base}",
                         "Serve the base that it was trained on, or train it again.")
        if info.quantization != self._quantization:
            raise _unfit(info, f"was trained on {info.quantization}, and this engine serves {self._quantization}",
                         "An adapter is served on the precision that it was trained on.")


def _part(target: Target, tensors: Mapping[str, torch.Tensor], scaling: float) -> Part:
    """Outputs in the order in which they are computed."""
    a, b, magnitude = tensors["A"], tensors["B"], tensors.get("magnitude_vector")
    if target.order is not None:
        b, magnitude = b[target.order], None if magnitude is None else magnitude[target.order]
    return Part(a, b, scaling, None if magnitude is None else gain(target.frozen(), a, b, scaling, magnitude))


def _unfit(info: AdapterInfo, reason: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"The adapter in {info.path} {reason}.", hint=hint, code="adapter_not_supported")
