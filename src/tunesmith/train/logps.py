"""How likely the answers of a batch are, under the model that is trained and under the reference: the base with the adapter off.

Tensor names carry their axes: B rows, N tokens that train.
"""

from typing import NamedTuple

import torch
from peft import PeftModel

from tunesmith.train.head import alone
from tunesmith.train.loss import num_rows, score
from tunesmith.train.method import Batch, Model


class Answers(NamedTuple):
    """Of each row the tokens that train: the sum of their log-probabilities in nats, and their number."""

    logps_B: torch.Tensor
    lengths_B: torch.Tensor

    @property
    def means_B(self) -> torch.Tensor:
        return self.logps_B / self.lengths_B


def answers(model: Model, batch: Batch, *, fused_head: bool) -> Answers:
    """`batch`, padded or packed, and `fused_head` as in `loss.score`."""
    found = score(model, batch, fused_head=fused_head)
    zeros_B = found.logps_N.new_zeros(num_rows(batch))
    logps_B = zeros_B.index_add(0, found.owners_N, found.logps_N)
    return Answers(logps_B, zeros_B.index_add(0, found.owners_N, torch.ones_like(found.logps_N)))


@torch.no_grad()
def reference_answers(model: Model, batch: Batch, *, fused_head: bool) -> Answers:
    """The same under the base alone. There is no second copy of it: the adapter is switched off and on again."""
    model = alone(model)
    assert isinstance(model, PeftModel), "without an adapter the base is gone with the first step"
    with model.disable_adapter():
        return answers(model, batch, fused_head=fused_head)
