"""Keys and values: of the running sequences, one contiguous row each, and of stored blocks. Plain torch; knows no sequences.

A layer's keys are one tensor [slots * positions, heads, head size], seen as [slots, positions, heads, head size]: a step's tokens
are written by one `index_copy_`, and attention reads rows as views. Stored blocks lie likewise, BLOCK positions each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import torch

from tunesmith.engine.blocks import BLOCK
from tunesmith.engine.scheduler import Copy, Move, Restore, Save, SoftPrompt

MIN_POSITIONS = 128
MIN_BLOCKS = 64

Pairs = list[tuple[torch.Tensor, torch.Tensor]]
"""For each layer keys and values [positions, heads, head size]."""


def power_of_two(number: int) -> int:
    """The smallest power of two that is not smaller."""
    return 1 << max(0, number - 1).bit_length()


@dataclass
class Plane:
    """Keys or values of one layer. Made when the first are written, since only they tell heads and head size."""

    cells: torch.Tensor | None = None
    """[slots * positions, heads, head size]"""
    rows: torch.Tensor | None = None
    """The same, [slots, positions, heads, head size]."""
    blocks: torch.Tensor | None = None
    """[stored blocks * BLOCK, heads, head size]"""


@dataclass
class Layer:
    keys: Plane = field(default_factory=Plane)
    values: Plane = field(default_factory=Plane)


class RowCache:
    """All layers. `reserve` makes room before a step; `cells` tells where its tokens go."""

    def __init__(self, num_layers: int, device: torch.device):
        self.device = device
        self.layers = [Layer() for _ in range(num_layers)]
        self.num_slots, self.positions = 1, MIN_POSITIONS
        self.num_blocks = 0

    def _planes(self) -> list[Plane]:
        return [plane for layer in self.layers for plane in (layer.keys, layer.values)]

    # -- rows -----------------------------------------------------------------------------------------------------------

    def reserve(self, num_slots: int, longest: int) -> None:
        """Room for so many slots of `longest` positions. Doubles what is too small; what was too large shrinks on the way."""
        if num_slots <= self.num_slots and longest <= self.positions:
            return
        old_slots, old_positions = self.num_slots, self.positions
        self.num_slots, self.positions = power_of_two(num_slots), max(MIN_POSITIONS, power_of_two(longest))
        slots, positions = min(old_slots, self.num_slots), min(old_positions, self.positions)
        for plane in self._planes():
            if plane.cells is not None:
                old = plane.cells.unflatten(0, (old_slots, old_positions))
                self._make_rows(plane, old)[:slots, :positions] = old[:slots, :positions]

    def _make_rows(self, plane: Plane, like: torch.Tensor) -> torch.Tensor:
        """Zeros, for attention also multiplies what its mask hides: by zero, which must not meet a NaN."""
        plane.rows = like.new_zeros(self.num_slots, self.positions, *like.shape[-2:])
        plane.cells = plane.rows.flatten(0, 1)
        return plane.rows

    def write(self, layer: int, cells_N: torch.Tensor, keys_NHD: torch.Tensor, values_NHD: torch.Tensor) -> None:
        """Puts the keys and values of N tokens into their cells, slot * positions + position each."""
        at = self.layers[layer]
        for plane, new in ((at.keys, keys_NHD), (at.values, values_NHD)):
            if plane.cells is None:
                self._make_rows(plane, new)
            assert plane.cells is not None
            plane.cells.index_copy_(0, cells_N, new)

    def read(self, layer: int, slots: slice | torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [slots, heads, length, head size]; of a slice of slots as views."""
        keys, values = self.layers[layer].keys.rows, self.layers[layer].values.rows
        assert keys is not None
        assert values is not None
        return keys[slots, :length].transpose(1, 2), values[slots, :length].transpose(1, 2)

    def clear(self, slot: int) -> None:
        """Forgets a row that may hold NaN: the next in this slot must not meet it."""
        for plane in self._planes():
            if plane.rows is not None:
                plane.rows[slot] = 0

    def nbytes_per_position(self) -> int:
        """Keys and values of one token in all layers."""
        return sum(plane.cells[0].nbytes for plane in self._planes() if plane.cells is not None)

    # -- copies ---------------------------------------------------------------------------------------------------------

    def copy(self, copies: list[Copy], soft_prompts: Mapping[int, Pairs]) -> None:
        """Makes a step's copies in their order; those of one kind that follow each other are made together."""
        for kind, group in groupby(copies, type):
            several = list(group)
            if kind is Save:
                self._save(several)
            elif kind is Restore:
                self._restore(several)
            else:
                for each in several:
                    self._copy_row(each, soft_prompts)

    def _copy_row(self, each: Copy, soft_prompts: Mapping[int, Pairs]) -> None:
        if isinstance(each, Move):
            for plane in self._planes():
                if plane.rows is not None:
                    plane.rows[each.target] = plane.rows[each.source]
        elif isinstance(each, SoftPrompt):
            pairs = soft_prompts[each.adapter]
            first = each.slot * self.positions
            cells = torch.arange(first, first + len(pairs[0][0]), device=self.device)
            for layer, (keys, values) in enumerate(pairs):
                self.write(layer, cells, keys, values)

    def _save(self, saves: list[Save]) -> None:
        cells = self._cells_of([(save.slot, save.start, len(save.blocks)) for save in saves])
        ids = [block for save in saves for block in save.blocks]
        self._reserve_blocks(max(ids) + 1)
        stored = self._stored(ids)
        for plane in self._planes():
            assert plane.cells is not None
            if plane.blocks is None:
                plane.blocks = plane.cells.new_zeros(self.num_blocks * BLOCK, *plane.cells.shape[1:])
            plane.blocks.index_copy_(0, stored, plane.cells.index_select(0, cells))

    def _restore(self, restores: list[Restore]) -> None:
        cells = self._cells_of([(restore.slot, 0, len(restore.blocks)) for restore in restores])
        stored = self._stored([block for restore in restores for block in restore.blocks])
        for plane in self._planes():
            assert plane.cells is not None
            assert plane.blocks is not None
            plane.cells.index_copy_(0, cells, plane.blocks.index_select(0, stored))

    def _cells_of(self, runs: list[tuple[int, int, int]]) -> torch.Tensor:
        """Cells of runs (slot, first position, whole blocks)."""
        spans = [(slot * self.positions + start, count * BLOCK) for slot, start, count in runs]
        return torch.cat([torch.arange(first, first + count, device=self.device) for first, count in spans])

    def _stored(self, blocks: list[int]) -> torch.Tensor:
        first = torch.tensor(blocks, device=self.device)[:, None] * BLOCK
        return (first + torch.arange(BLOCK, device=self.device)).flatten()

    def _reserve_blocks(self, wanted: int) -> None:
        """The store grows by doubling: who never repeats a prompt does not pay for it."""
        if wanted <= self.num_blocks:
            return
        self.num_blocks = max(MIN_BLOCKS, power_of_two(wanted))
        for plane in self._planes():
            if plane.blocks is not None:
                grown = plane.blocks.new_zeros(self.num_blocks * BLOCK, *plane.blocks.shape[1:])
                grown[: len(plane.blocks)] = plane.blocks
                plane.blocks = grown
