"""Preference pairs as batches, and the numbers that people look at while a preference is learned. B pairs, so 2B rows."""

from collections.abc import Sequence

import torch

from tunesmith.data.examples import Pair
from tunesmith.train import loss
from tunesmith.train.method import Batch, Share


def collate(pairs: Sequence[Pair], pad_id: int) -> Batch:
    """`input_ids` and `labels`, both [2B, T]: first all chosen answers, then all rejected."""
    return loss.collate([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs], pad_id)


def num_pairs(batch: Batch) -> int:
    return loss.num_rows(batch) // 2


def preferred(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """1 where the chosen answer's reward is the higher one, 0 where it is the lower one, a half where they are equal.

    Equal they are for every pair before the first step, where model and reference are the same.
    """
    return ((chosen > rejected).float() + (chosen >= rejected).float()) / 2


def numbers(chosen_B: torch.Tensor, rejected_B: torch.Tensor) -> dict[str, Share]:
    """TRL's names: rewards of both sides, how far apart they are, and how often the chosen one's is the higher."""
    chosen_B, rejected_B = chosen_B.detach(), rejected_B.detach()
    found = {
        "rewards/accuracies": preferred(chosen_B, rejected_B),
        "rewards/margins": chosen_B - rejected_B,
        "rewards/chosen": chosen_B,
        "rewards/rejected": rejected_B,
    }
    return {name: Share(value.sum(), torch.tensor(value.numel())) for name, value in found.items()}
