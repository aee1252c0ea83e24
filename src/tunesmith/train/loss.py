"""Batches of encoded rows, and the loss on the tokens that train. Tensor names carry their axes: B rows, T tokens, V vocabulary,
N tokens that train, K columns in which a token of some row trains.

Rows are padded on the right and attention is causal, so no padding mask is needed: what a row's own tokens see is the row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from tunesmith.data.chat_template import EncodedRow
from tunesmith.train.method import Batch

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


def token_loss(model: torch.nn.Module, batch: Batch, *, fused_head: bool) -> TokenLoss:
    """The loss of a batch. `fused_head` uses TRL's head, which never holds all logits: for a GPU and a wide vocabulary.

    On a CPU that head scores every position, so there only the columns with tokens that train are asked for.
    """
    labels_BT = batch["labels"]
    if fused_head:
        scored = model(**batch, fused_lm_head=True, use_cache=False)
        return TokenLoss(-scored.log_probs.sum(), scored.is_top1.sum(), scored.label_mask.sum())
    trained_BT = labels_BT != IGNORED
    columns_K = trained_BT.any(0).nonzero()[:, 0]
    # As indices and not as a number of last columns: that would be a strided view, for which torch multiplies row by row.
    logits_BKV = model(input_ids=batch["input_ids"], logits_to_keep=columns_K - 1, use_cache=False).logits
    chosen_BK = trained_BT[:, columns_K]
    logits_NV, targets_N = logits_BKV[chosen_BK].float(), labels_BT[:, columns_K][chosen_BK]
    num_right = (logits_NV.detach().argmax(-1) == targets_N).sum()
    return TokenLoss(cross_entropy(logits_NV, targets_N, reduction="sum"), num_right, chosen_BK.sum())
