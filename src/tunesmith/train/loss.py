"""Batches of encoded rows, and the loss on the tokens that train. Tensor names carry their axes: B rows, T tokens, V vocabulary,
N tokens that train, K columns in which a token of some row trains.

Rows are padded on the right and attention is causal, so no padding mask is needed: what a row's own tokens see is the row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from tunesmith.data.chat_template import EncodedRow
from tunesmith.train.head import chosen, counts_hidden_states
from tunesmith.train.method import Batch, Model

IGNORED = -100
"""Label of a token whose prediction the loss does not count."""


class TokenLoss(NamedTuple):
    """Sums over the tokens that train, so that micro-batches add up."""

    nll_sum: torch.Tensor
    num_right: torch.Tensor
    num_tokens: torch.Tensor


def collate(rows: Sequence[EncodedRow], pad_id: int) -> Batch:
    """`input_ids` and `labels`, both [B, T], padded to the longest row."""
    width = max(len(row.ids) for row in rows)
    ids_BT = torch.full((len(rows), width), pad_id)
    labels_BT = torch.full((len(rows), width), IGNORED)
    for number, row in enumerate(rows):
        ids = torch.tensor(row.ids)
        ids_BT[number, : len(ids)] = ids
        labels_BT[number, : len(ids)] = ids.masked_fill(~torch.tensor(row.loss_mask), IGNORED)
    return {"input_ids": ids_BT, "labels": labels_BT}


class Scored(NamedTuple):
    """The tokens of a batch that train, one after another."""

    logps_N: torch.Tensor
    """Log-probability of each after the tokens before it, in nats, with its graph."""
    right_N: torch.Tensor
    """Is it the likeliest?"""
    owners_N: torch.Tensor
    """The number of its row."""


def score(model: Model, batch: Batch, *, fused_head: bool) -> Scored:
    """`batch` as `collate`, `packing.pack` or `packing.pack_pairs` makes it; no logits are held but those of a slice of tokens.

    `fused_head` uses TRL's head, written for GPUs. On a CPU that head scores every position, and here only those that train.
    """
    given = {name: batch[name] for name in ("input_ids", "position_ids", "documents") if name in batch}
    if fused_head and "sources" not in batch:
        found = model(**given, labels=batch["labels"], fused_lm_head=True, use_cache=False)
        rows_N, places_N = found.label_mask.nonzero(as_tuple=True)
        owners_N = _owners(batch, rows_N, places_N + 1)
        return Scored(found.log_probs[rows_N, places_N], found.is_top1[rows_N, places_N], owners_N)
    rows_N, sources_N, targets_N, owners_N = _wanted(batch)
    if counts_hidden_states(model):
        found = model(**given, logits_to_keep=1, output_hidden_states=[-1], use_cache=False)
        return Scored(*chosen(model, found.hidden_states[-1][rows_N, sources_N], targets_N), owners_N)
    # As indices and not as a number of last columns: that would be a strided view, for which torch multiplies row by row.
    columns_K, at_N = sources_N.unique(return_inverse=True)
    logits_NV = model(**given, logits_to_keep=columns_K, use_cache=False).logits[rows_N, at_N].float()
    right_N = logits_NV.detach().argmax(-1) == targets_N
    return Scored(-cross_entropy(logits_NV, targets_N, reduction="none"), right_N, owners_N)


def _wanted(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each token that trains: its line, the place whose hidden state foretells it, its id and its row; all [N]."""
    if "sources" in batch:
        sources_N = batch["sources"]
        return torch.zeros_like(sources_N), sources_N, batch["targets"], batch["owners"]
    labels_BT = batch["labels"]
    rows_N, places_N = (labels_BT != IGNORED).nonzero(as_tuple=True)
    return rows_N, places_N - 1, labels_BT[rows_N, places_N], _owners(batch, rows_N, places_N)


def _owners(batch: Batch, rows_N: torch.Tensor, places_N: torch.Tensor) -> torch.Tensor:
    if "documents" not in batch:
        return rows_N
    lengths_D = batch["documents"].sum(1)
    return torch.arange(len(lengths_D), device=lengths_D.device).repeat_interleave(lengths_D)[places_N]


def num_rows(batch: Batch) -> int:
    """Rows of a batch, however they lie."""
    if "sources" in batch:
        return 2 * len(batch["documents"])
    return len(batch["documents"] if "documents" in batch else batch["input_ids"])


def token_loss(model: Model, batch: Batch, *, fused_head: bool) -> TokenLoss:
    """The loss of a batch; see `score`."""
    found = score(model, batch, fused_head=fused_head)
    return TokenLoss(-found.logps_N.sum(), found.right_N.sum(), torch.tensor(len(found.logps_N)))
