"""What the lean forwards of all families share: linear layers with adapters, attention over the row cache, from ids to logits.

A family (`lean`, `lean_neox`) reads its weights and gives the layers. Queries and keys are laid out so that the two numbers that
are turned against each other lie side by side: a complex number then, turned by one multiplication. Tokens stand in one line
without padding, and a decode step is one call of attention over all rows. Names of axes: N tokens, H heads, D head size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch.nn.functional import embedding, scaled_dot_product_attention

from tunesmith.engine.adapters import Grouping, Lora, Target
from tunesmith.engine.batch import Batch, Group, visible
from tunesmith.engine.cache import RowCache
from tunesmith.engine.dora import frozen_rows
from tunesmith.engine.int8 import int8_weight
from tunesmith.engine.matmul import Weight, fastest

Weights = Mapping[str, torch.Tensor]
Attend = Callable[[torch.Tensor], torch.Tensor]
"""One layer's attention: queries, keys and values [N, all their heads, D], which it changes, to [N, heads * D]."""
Layer = Callable[[torch.Tensor, Attend], torch.Tensor]
"""A decoder layer: [N, width] to [N, width]."""


class Linear:
    """y = x W^T + b, of one layer of the base or of several side by side, with the adapters' updates."""

    def __init__(self, weight: Weight, bias_O: torch.Tensor | None, lora: Lora):
        self._weight, self._bias_O, self._lora = weight, bias_O, lora

    def __call__(self, x_NI: torch.Tensor) -> torch.Tensor:
        y_NO = self._weight(x_NI)
        if self._bias_O is not None:
            y_NO += self._bias_O
        return self._lora.apply(y_NO, x_NI)


class Linears:
    """Makes the linear layers of one model and remembers where each layer of the base is computed."""

    def __init__(self, weights: Weights, quantize: str | None):
        self.grouping = Grouping()
        self.targets: dict[str, Target] = {}
        self._weights, self._quantize = weights, quantize

    def make(self, *names: str, orders: Mapping[str, torch.Tensor] | None = None) -> Linear:
        """`orders` has the order of outputs for those of `names` that do not keep it."""
        kept = orders or {}

        def ordered(name: str, tensor: torch.Tensor) -> torch.Tensor:
            return tensor[kept[name]] if name in kept else tensor

        parts = [ordered(name, self._weights[f"{name}.weight"]) for name in names]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        bias_O = None
        if any(f"{name}.bias" in self._weights for name in names):
            zeros = [part.new_zeros(len(part)) for part in parts]
            biases = [self._weights.get(f"{name}.bias", zero) for name, zero in zip(names, zeros, strict=True)]
            bias_O = torch.cat([ordered(name, bias) for name, bias in zip(names, biases, strict=True)])
        lora = Lora(self.grouping, len(whole))
        weight = int8_weight(whole) if self._quantize == "int8" else fastest(whole)
        first = 0
        for name, part in zip(names, parts, strict=True):
            shape = (len(part), part.shape[1])
            frozen = frozen_rows(weight, bias_O, slice(first, first + len(part)), shape)
            self.targets[name] = Target(lora, first, shape, frozen, kept.get(name))
            first += len(part)
        return Linear(weight, bias_O, lora)


@dataclass(frozen=True)
class Attention:
    """Over the row cache, of all layers."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    windows: Sequence[int | None]
    """For each layer how many positions it sees, itself included; None is all."""
    turns: torch.Tensor
    """[positions, D / 2] complex, or fewer columns: the other numbers of a head are not turned."""

    def __call__(
        self, batch: Batch, cache: RowCache, number: int, turns_N: torch.Tensor, heads_NHD: torch.Tensor
    ) -> torch.Tensor:
        """[N, heads * D]. `turns_N` are those of the tokens' positions, [N, 1, pairs]."""
        num_q, num_k = self.num_heads, self.num_kv_heads
        turned = heads_NHD[:, : num_q + num_k, : 2 * turns_N.shape[-1]]
        torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(turns_N)
        q, k, v = heads_NHD.split((num_q, num_k, num_k), 1)
        cache.write(number, batch.cells_N, k, v)
        if batch.is_decode:
            return self._decode(batch, cache, number, q)
        out = q.new_empty(batch.num_tokens, num_q * self.head_size)
        if batch.decode is not None:
            tokens = batch.decode.tokens
            out[tokens] = self._decode(batch, cache, number, q[tokens])
        for first, row in batch.pieces:
            end = first + len(row.ids)
            out[first:end] = self._piece(cache, number, q[first:end], row.slot, row.start)
        return out

    def _decode(self, batch: Batch, cache: RowCache, number: int, q_BHD: torch.Tensor) -> torch.Tensor:
        """The queries that share a head of keys take the place of a query length: no head is copied."""
        at = batch.decode
        assert at is not None
        q = q_BHD if at.to_slots is None else q_BHD[at.to_slots]
        keys, values = cache.read(number, slice(at.num_rows), at.length)
        mask = at.mask(self.windows[number], q.dtype)
        out = scaled_dot_product_attention(q.reshape(at.num_rows, self.num_kv_heads, -1, self.head_size), keys, values, mask)
        out = out.reshape(at.num_rows, -1)
        return out if at.from_slots is None else out[at.from_slots]

    def _piece(self, cache: RowCache, number: int, q_THD: torch.Tensor, slot: int, start: int) -> torch.Tensor:
        """A piece of one prompt: [T, heads * D]."""
        count, window = len(q_THD), self.windows[number]
        keys, values = cache.read(number, slice(slot, slot + 1), start + count)
        mask = None
        if start > 0 or (window is not None and count > window):
            at = torch.arange(start + count, device=q_THD.device)
            mask = visible(at, at[start:, None], window)
        q = q_THD.transpose(0, 1)[None]
        out = scaled_dot_product_attention(q, keys, values, mask, is_causal=mask is None, enable_gqa=True)
        return out[0].transpose(0, 1).reshape(count, -1)


class Decoder:
    """A whole model of the given layers."""

    def __init__(
        self, linears: Linears, embedding_VI: torch.Tensor, layers: Sequence[Layer], attention: Attention,
        norm: Callable[[torch.Tensor], torch.Tensor], head: Linear, key_order: torch.Tensor,
    ):
        self.device, self.dtype = embedding_VI.device, embedding_VI.dtype
        self.num_layers, self.vocab_size = len(layers), len(embedding_VI)
        self.key_order: torch.Tensor | None = key_order
        self.windows = attention.windows
        # Not `linears` itself, which holds the weights as they were read.
        self._grouping, self._targets, self._embedding_VI = linears.grouping, linears.targets, embedding_VI
        self._layers, self._attention, self._norm, self._head = layers, attention, norm, head

    def find(self, name: str) -> Target | None:
        return self._targets.get(name)

    def compute(
        self, batch: Batch, cache: RowCache, wanted_R: torch.Tensor, embeds_ND: torch.Tensor | None = None, hidden: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [R, V] of the wanted tokens of the line; with `hidden` also the last hidden states [N, width] of all."""
        self._grouping.set(batch.groups, batch.num_tokens)
        x = embedding(batch.ids_N, self._embedding_VI) if embeds_ND is None else embeds_ND
        turns_N = self._attention.turns[batch.positions_N][:, None]
        for number, layer in enumerate(self._layers):
            x = layer(x, partial(self._attention, batch, cache, number, turns_N))
        x = self._norm(x)
        self._grouping.set(wanted_groups(batch, wanted_R), len(wanted_R))
        asked = x if len(wanted_R) == len(x) else x[wanted_R]
        return self._head(asked) if len(asked) else x.new_empty(0, self.vocab_size), x if hidden else None


class Forward(Protocol):
    """What a family's class is."""

    def __call__(
        self, config: Mapping[str, Any], weights: Weights, device: torch.device, *, quantize: str | None = None
    ) -> Decoder:
        """Raises KeyError for weights that are not named as the family's are."""
        ...

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Can it be tried? The comparison at load decides."""
        ...


def pair_order(size: int, turned: int, device: torch.device) -> torch.Tensor:
    """[size] the order in which the first `turned` numbers of a head lie by pairs: as stored, n belongs to n + turned / 2."""
    at = torch.arange(size, device=device)
    return torch.cat([at[:turned].view(2, -1).t().flatten(), at[turned:]])


def wanted_groups(batch: Batch, wanted_R: torch.Tensor) -> list[Group]:
    """The groups of the tokens that the head computes: `wanted` goes up, so they are slices again."""
    if not batch.groups or len(wanted_R) == batch.num_tokens:
        return batch.groups
    wanted = wanted_R.tolist()
    counted = [(g, sum(t < g.first for t in wanted), sum(t < g.end for t in wanted)) for g in batch.groups]
    return [group._replace(first=first, end=end) for group, first, end in counted if first < end]
