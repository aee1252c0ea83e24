"""Keys and values of the running sequences: for each layer one tensor [slots, heads, positions, head size]. Knows no sequences.

It is a transformers `Cache`, so the model's own attention writes and reads it. What a step touches is set by `begin`.
"""

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from tunesmith.engine.scheduler import Copy, Move, power_of_two

MIN_POSITIONS = 128


class Places:
    """Where the tokens of a step are written, and which rows it reads; shared by all layers."""

    slots: torch.Tensor
    """[N] slot of each real token."""
    positions: torch.Tensor
    """[N] its position."""
    rows: torch.Tensor
    """[N] its row in the step's batch."""
    columns: torch.Tensor
    """[N] its column in the step's batch."""
    read_slots: torch.Tensor | None
    """[B] slots of the batch's rows; None when they are 0, 1, ... B-1, so that no copy is needed."""
    num_rows: int
    length: int
    """Positions that are read."""
    shape: tuple[int, int]
    """Slots and positions that there must be room for."""


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values. `update` is called by the model's attention."""

    def __init__(self, places: Places):
        super().__init__()
        self.places = places

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots, positions = self.places.shape
        self.keys = key_states.new_zeros(slots, key_states.shape[1], positions, key_states.shape[3])
        self.values = value_states.new_zeros(slots, value_states.shape[1], positions, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes [B, heads, columns, head size] and returns all keys and values of the step's rows up to `length`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        at = self.places
        self.keys[at.slots, :, at.positions] = key_states[at.rows, :, at.columns]
        self.values[at.slots, :, at.positions] = value_states[at.rows, :, at.columns]
        return self._read(self.keys), self._read(self.values)

    def _read(self, whole: torch.Tensor) -> torch.Tensor:
        at = self.places
        if at.read_slots is None:
            return whole[: at.num_rows, :, : at.length]
        return whole[:, :, : at.length].index_select(0, at.read_slots)

    def resize(self, num_slots: int) -> None:
        """Makes room as `places` says, keeping the first `num_slots` rows."""
        if not self.is_initialized:
            return
        old_keys, old_values = self.keys, self.values
        self.lazy_initialization(old_keys, old_values)
        rows, length = min(num_slots, old_keys.shape[0]), min(old_keys.shape[2], self.keys.shape[2])
        self.keys[:rows, :, :length] = old_keys[:rows, :, :length]
        self.values[:rows, :, :length] = old_values[:rows, :, :length]

    def move(self, source: int, target: int) -> None:
        if self.is_initialized:
            self.keys[target] = self.keys[source]
            self.values[target] = self.values[source]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.places.length, 0

    def get_seq_length(self) -> int:
        return self.places.length

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """All layers."""

    def __init__(self, num_layers: int, device: torch.device):
        self.device = device
        self.places = Places()
        self.places.shape = (1, MIN_POSITIONS)
        super().__init__(layers=[SlotLayer(self.places) for _ in range(num_layers)])

    def begin(self, slots: list[int], starts: list[int], counts: list[int], num_slots: int, longest: int) -> None:
        """Sets what the next step writes and reads: row i holds `counts[i]` tokens of slot `slots[i]` from `starts[i]` on.

        Rows are aligned at the right. `num_slots` slots are in use, the longest of them with `longest` tokens.
        """
        self._make_room(num_slots, longest)
        at, width = self.places, max(counts)
        cells = [
            (slot, start + n, row, width - count + n)
            for row, (slot, start, count) in enumerate(zip(slots, starts, counts, strict=True))
            for n in range(count)
        ]
        at.slots, at.positions, at.rows, at.columns = torch.tensor(cells, device=self.device).unbind(1)
        at.num_rows = len(slots)
        at.read_slots = None if slots == list(range(len(slots))) else torch.tensor(slots, device=self.device)
        at.length = max(start + count for start, count in zip(starts, counts, strict=True))

    def copy(self, copies: list[Copy]) -> None:
        for each in copies:
            if isinstance(each, Move):
                for layer in self.layers:
                    layer.move(each.source, each.target)

    def _make_room(self, num_slots: int, longest: int) -> None:
        """Doubles what is too small; what was too large shrinks on the way."""
        slots, positions = self.places.shape
        if num_slots <= slots and longest <= positions:
            return
        self.places.shape = (power_of_two(num_slots), max(MIN_POSITIONS, power_of_two(longest)))
        for layer in self.layers:
            layer.resize(num_slots)
