"""A transformers module over our cache: any decoder whose attention needs keys, values and a mask, sliding windows included.

One that needs more (recurrent states, positions in the mask) is found out by `fitting` and computed by `single`.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from tunesmith.engine.adapters import Grouping, Lora, Target
from tunesmith.engine.batch import Batch, Row, visible
from tunesmith.engine.cache import RowCache
from tunesmith.engine.dora import frozen_module
from tunesmith.engine.parity import Reference, difference

MASK_KINDS = {"full_attention", "sliding_attention"}
TOLERANCES = {torch.float32: 1e-3}
"""Of our cache against none, by dtype; others 0.1."""
UNFIT = (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError, NotImplementedError)
"""What a module raises that takes no mask, positions or cache like ours."""


class LoraLayer(torch.nn.Module):
    """A linear layer with the updates of any number of adapters."""

    def __init__(self, base: torch.nn.Module, lora: Lora):
        super().__init__()
        self.base = base
        self.lora = lora

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lora.apply_padded(self.base(x), x)


class Rectangle(NamedTuple):
    """Rows of a step, padded at the left to one width: all end in the same column, and the head computes that one only."""

    rows: list[Row]
    tokens_N: torch.Tensor
    """The real tokens' places in the step's line."""
    row_N: torch.Tensor
    column_N: torch.Tensor
    cells_N: torch.Tensor
    width: int
    length: int
    """Positions that are read."""
    slots: torch.Tensor | slice


class SlotLayer(CacheLayerMixin):
    """One layer of transformers' cache, kept in ours."""

    def __init__(self, owner: "ModuleCache", number: int):
        super().__init__()
        self._owner, self._number = owner, number

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Our cache makes its own tensors."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the real tokens of [B, heads, columns, head size] and returns all keys and values of the rows."""
        at, rows = self._owner.at, self._owner.rows
        keys, values = (states.transpose(1, 2)[at.row_N, at.column_N] for states in (key_states, value_states))
        rows.write(self._number, at.cells_N, keys, values)
        return rows.read(self._number, at.slots, at.length)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._owner.at.length, 0

    def get_seq_length(self) -> int:
        return self._owner.at.length

    def get_max_length(self) -> int:
        return -1


class ModuleCache(Cache):
    """What transformers is given."""

    rows: RowCache
    at: Rectangle

    def __init__(self, num_layers: int):
        super().__init__(layers=[SlotLayer(self, number) for number in range(num_layers)])


def wrapped(module: torch.nn.Module, name: str, grouping: Grouping) -> Target | None:
    """The linear layer `name`, wrapped if it is not yet; None where there is none."""
    parent_name, _, leaf = name.rpartition(".")
    try:
        parent = module.get_submodule(parent_name)
        layer = parent.get_submodule(leaf)
    except AttributeError:
        return None
    if isinstance(layer, LoraLayer):
        return Target(layer.lora, 0, (layer.base.out_features, layer.base.in_features), partial(frozen_module, layer.base))
    shape = (getattr(layer, "out_features", None), getattr(layer, "in_features", None))
    if shape[0] is None or shape[1] is None:
        return None
    wrapper = LoraLayer(layer, Lora(grouping, shape[0]))
    parent.register_module(leaf, wrapper)
    return Target(wrapper.lora, 0, shape, partial(frozen_module, layer))


class Module:
    """Computes a step in at most two rectangles: the rows of one token, and the others."""

    def __init__(self, module: torch.nn.Module):
        self.module = module
        config = module.config.get_text_config()
        self.device, self.dtype = module.device, module.dtype
        self.num_layers, self.vocab_size = int(config.num_hidden_layers), int(config.vocab_size)
        self.key_order: torch.Tensor | None = None
        self.grouping = Grouping()
        told = config.to_dict()
        self.layer_types = set(told.get("layer_types") or ())
        self.window: int | None = told.get("sliding_window") if told.get("use_sliding_window", True) else None
        self._takes_bool_mask = config._attn_implementation == "sdpa"
        self._cache = ModuleCache(self.num_layers)

    def find(self, name: str) -> Target | None:
        return wrapped(self.module, name, self.grouping)

    def compute(
        self, batch: Batch, cache: RowCache, wanted_R: torch.Tensor, embeds_ND: torch.Tensor | None = None, hidden: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [R, V] of the wanted tokens of the line; with `hidden` also the last hidden states [N, width] of all."""
        self._cache.rows = cache
        wanted = {token: place for place, token in enumerate(wanted_R.tolist())}
        logits_RV = torch.empty(len(wanted_R), self.vocab_size, device=self.device)
        states: dict[torch.Tensor, torch.Tensor] = {}
        for at in rectangles(batch, cache):
            self._cache.at = at
            set_rows(self.grouping, at.rows)
            tokens, columns = at.tokens_N.tolist(), at.column_N.tolist()
            asked = [n for n, token in enumerate(tokens) if token in wanted]
            kept = at.width - min([columns[n] for n in asked], default=at.width - 1)
            output = self._call(at, batch, embeds_ND, kept, hidden)
            if asked:
                found = output.logits[at.row_N[asked], at.column_N[asked] - at.width]
                logits_RV[[wanted[tokens[n]] for n in asked]] = found.to(logits_RV.dtype)
            if hidden:
                states[at.tokens_N] = output.hidden_states[-1][at.row_N, at.column_N]
        line = None
        if hidden:
            line = torch.cat(list(states.values()))[torch.cat(list(states)).argsort()]
        return logits_RV, line

    def _call(self, at: Rectangle, batch: Batch, embeds_ND: torch.Tensor | None, kept: int, hidden: bool) -> "ModuleOutput":
        shape = (len(at.rows), at.width)
        ids, positions = (torch.zeros(shape, dtype=torch.long, device=self.device) for _ in range(2))
        ids[at.row_N, at.column_N] = batch.ids_N[at.tokens_N]
        positions += torch.tensor([[row.start] for row in at.rows], device=self.device)
        positions[at.row_N, at.column_N] = batch.positions_N[at.tokens_N]
        what = {"input_ids": ids} if embeds_ND is None else {"inputs_embeds": embeds_ND[None]}
        return self.module(
            **what, attention_mask=self._masks(positions, at.length), position_ids=positions, past_key_values=self._cache,
            use_cache=True, logits_to_keep=kept, output_hidden_states=hidden,
        )

    def _masks(self, positions: torch.Tensor, length: int) -> "torch.Tensor | Mapping[str, torch.Tensor]":
        """[B, 1, T, length], or one for each type of layer, as the module's configuration tells."""
        def mask(window: int | None) -> torch.Tensor:
            seen = visible(torch.arange(length, device=self.device), positions[:, None, :, None], window)
            if self._takes_bool_mask:
                return seen
            return torch.where(seen, 0.0, torch.finfo(self.dtype).min).to(self.dtype)

        if not self.layer_types:
            return mask(self.window)
        return {kind: mask(self.window if kind == "sliding_attention" else None) for kind in self.layer_types}


class ModuleOutput(NamedTuple):
    """What is read of a module's answer."""

    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


def set_rows(grouping: Grouping, rows: list[Row]) -> None:
    """Which of a rectangle's rows use which adapter."""
    adapters = [row.adapter for row in rows]
    present = sorted({serial for serial in adapters if serial is not None})
    grouping.rows = [
        (serial, slice(None) if adapters.count(serial) == len(rows)
         else torch.tensor([n for n, other in enumerate(adapters) if other == serial]))
        for serial in present
    ]


def rectangles(batch: Batch, cache: RowCache) -> list[Rectangle]:
    """The step's rows of one token, and those of several, each by slot: rows 0, 1, 2 ... are read without a copy."""
    pairs = sorted(zip(batch.firsts, batch.rows, strict=True), key=lambda pair: pair[1].slot)
    halves = [[p for p in pairs if len(p[1].ids) == 1], [p for p in pairs if len(p[1].ids) > 1]]
    return [_rectangle(half, batch, cache) for half in halves if half]


def _rectangle(pairs: list[tuple[int, Row]], batch: Batch, cache: RowCache) -> Rectangle:
    rows = [row for _, row in pairs]
    width = max(len(row.ids) for row in rows)
    cells = [
        (first + n, number, width - len(row.ids) + n)
        for number, (first, row) in enumerate(pairs)
        for n in range(len(row.ids))
    ]
    tokens_N, row_N, column_N = torch.tensor(cells, device=cache.device).unbind(1)
    slots = [row.slot for row in rows]
    is_run = slots == list(range(slots[0], slots[0] + len(slots)))
    return Rectangle(
        rows, tokens_N, row_N, column_N, batch.cells_N[tokens_N], width, max(row.start + len(row.ids) for row in rows),
        slice(slots[0], slots[-1] + 1) if is_run else torch.tensor(slots, device=cache.device),
    )


def reference(module: torch.nn.Module) -> Reference:
    """Logits without any cache."""
    def logits(ids: list[int]) -> torch.Tensor:
        whole: torch.Tensor = module(torch.tensor([ids], device=module.device), use_cache=False).logits[0]
        return whole

    return logits


def fitting(module: torch.nn.Module, max_positions: int) -> Module | None:
    """The module over our cache, if that computes what it computes without; None when it needs more than a plain cache."""
    made = Module(module)
    if made.layer_types - MASK_KINDS:
        return None
    for kinds in ((made.layer_types, set()) if made.layer_types else (set(),)):
        made.layer_types = kinds
        try:
            found = difference(made, reference(module), max_positions, made.window)
        except UNFIT:
            continue
        if found <= TOLERANCES.get(module.dtype, 0.1):
            return made
    return None
