"""What a step's works are as tensors: tokens in one line, without padding; where they go; how attention and adapters divide them.

Rows that use the same adapter stand together. Made once a step; the layers only index with what lies here.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from tunesmith.engine.cache import RowCache


class Row(NamedTuple):
    """Some tokens of one sequence."""

    ids: list[int]
    slot: int
    start: int
    """Position of the first of them."""
    adapter: int | None = None


class Group(NamedTuple):
    """Tokens first ... end - 1 of the step use one adapter."""

    adapter: int
    first: int
    end: int


@dataclass
class Decode:
    """The rows of one token each, computed together over the slots 0 ... num_rows - 1, with those between that are not wanted."""

    num_rows: int
    length: int
    to_slots: torch.Tensor | None
    """[num_rows] the token that asks in each slot; None when they stand in that order."""
    from_slots: torch.Tensor | None
    """[tokens] the slot of each; None likewise."""
    tokens: torch.Tensor | None
    """[tokens] their places in the line; None when the whole line is one token a row."""
    positions: torch.Tensor
    """[num_rows]"""
    is_even: bool
    """Do all rows stand at the same position?"""
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """[rows, 1, 1, length] to add to the scores; None when every row sees everything. `window`: positions seen at most."""
        if self.is_even and (window is None or self.length <= window):
            return None
        if window not in self.masks:
            at = torch.arange(self.length, device=self.positions.device)
            seen = visible(at, self.positions[:, None], window)
            zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self.masks[window] = zeros.masked_fill_(~seen, float("-inf"))[:, None, None]
        return self.masks[window]


def visible(at: torch.Tensor, positions: torch.Tensor, window: int | None) -> torch.Tensor:
    """Which positions `at` a token at `positions` attends to: itself and those before, the last `window` of them."""
    seen = at <= positions
    return seen if window is None else seen & (at > positions - window)


class Batch:
    """The rows, sorted by adapter, and their tokens in one line of N."""

    def __init__(self, rows: list[Row], cache: RowCache):
        self.order = sorted(range(len(rows)), key=lambda index: (rows[index].adapter or 0, rows[index].slot))
        """`order[i]` is the place of row i among the rows that were given."""
        self.rows = [rows[index] for index in self.order]
        self.firsts: list[int] = []
        """Each row's first token in the line."""
        self.num_tokens = 0
        for row in self.rows:
            self.firsts.append(self.num_tokens)
            self.num_tokens += len(row.ids)
        self.device = cache.device
        positions = [p for row in self.rows for p in range(row.start, row.start + len(row.ids))]
        cells = [p + offset for row, offset in self._offsets(cache) for p in range(row.start, row.start + len(row.ids))]
        ids = [token for row in self.rows for token in row.ids]
        self.ids_N, self.positions_N, self.cells_N = torch.tensor([ids, positions, cells], device=self.device).unbind(0)
        self.groups = self._groups()

    def _offsets(self, cache: RowCache) -> list[tuple[Row, int]]:
        """The rows, each with the first cell of its slot."""
        return [(row, row.slot * cache.positions) for row in self.rows]

    @property
    def is_decode(self) -> bool:
        return self.num_tokens == len(self.rows)

    @property
    def pieces(self) -> list[tuple[int, Row]]:
        """First token and row of the rows with several tokens."""
        return [(first, row) for first, row in zip(self.firsts, self.rows, strict=True) if len(row.ids) > 1]

    def last_tokens(self) -> list[int]:
        """The last token of each row."""
        return [first + len(row.ids) - 1 for first, row in zip(self.firsts, self.rows, strict=True)]

    def _groups(self) -> list[Group]:
        groups: list[Group] = []
        for first, row in zip(self.firsts, self.rows, strict=True):
            end = first + len(row.ids)
            if row.adapter is None:
                continue
            if groups and groups[-1].adapter == row.adapter:
                groups[-1] = groups[-1]._replace(end=end)
            else:
                groups.append(Group(row.adapter, first, end))
        return groups

    @cached_property
    def decode(self) -> Decode | None:
        single = [(first, row) for first, row in zip(self.firsts, self.rows, strict=True) if len(row.ids) == 1]
        if not single:
            return None
        slots = [row.slot for _, row in single]
        num_rows = max(slots) + 1
        is_plain = slots == list(range(num_rows))
        asks, positions = [0] * num_rows, [0] * num_rows
        for token, (_, row) in enumerate(single):
            asks[row.slot], positions[row.slot] = token, row.start
        return Decode(
            num_rows=num_rows,
            length=max(positions) + 1,
            to_slots=None if is_plain else torch.tensor(asks, device=self.device),
            from_slots=None if is_plain else torch.tensor(slots, device=self.device),
            tokens=None if self.is_decode else torch.tensor([first for first, _ in single], device=self.device),
            positions=torch.tensor(positions, device=self.device),
            is_even=len(set(positions)) == 1,
        )
