"""How likely the answers of a batch are, under the model that is trained and under the reference: the base with the adapter off.

Tensor names carry their axes: B rows, T tokens, V vocabulary, N tokens that train, K columns in which a token of some row trains.
"""

from typing import NamedTuple

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from tunesmith.train.loss import IGNORED
from tunesmith.train.method import Batch, Model


class Answers(NamedTuple):
    """Of each row the tokens that train: the sum of their log-probabilities in nats, and their number."""

    logps_B: torch.Tensor
    lengths_B: torch.Tensor

    @property
    def means_B(self) -> torch.Tensor:
        return self.logps_B / self.lengths_B


def answers(model: Model, batch: Batch, *, fused_head: bool) -> Answers:
    """`batch` as `loss.collate` makes it. `fused_head` as in `loss.token_loss`."""
    labels_BT = batch["labels"]
    trained_BT = labels_BT != IGNORED
    lengths_B = trained_BT.sum(1)
    if fused_head:
        scored = model(input_ids=batch["input_ids"], labels=labels_BT, fused_lm_head=True, use_cache=False)
        return Answers(scored.log_probs.sum(1), lengths_B)
    columns_K = trained_BT.any(0).nonzero()[:, 0]
    logits_BKV = model(input_ids=batch["input_ids"], logits_to_keep=columns_K - 1, use_cache=False).logits
    chosen_BK = trained_BT[:, columns_K]
    nll_N = cross_entropy(logits_BKV[chosen_BK].float(), labels_BT[:, columns_K][chosen_BK], reduction="none")
    rows_N = chosen_BK.nonzero()[:, 0]
    return Answers(torch.zeros(len(labels_BT), device=nll_N.device).index_add(0, rows_N, -nll_N), lengths_B)


@torch.no_grad()
def reference_answers(model: Model, batch: Batch, *, fused_head: bool) -> Answers:
    """The same under the base alone. There is no second copy of it: the adapter is switched off and on again."""
    assert isinstance(model, PeftModel), "without an adapter the base is gone with the first step"
    with model.disable_adapter():
        return answers(model, batch, fused_head=fused_head)
