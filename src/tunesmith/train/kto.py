"""Kahneman-Tversky optimization (Ethayarajh et al. 2024): good answers become likelier, bad ones less so; no pairs.

How much likelier is judged against a reference point, the model's distance from the base, estimated on mismatched prompts and
answers of the micro-batch: each prompt with the answer of the row before it, as TRL's KTOTrainer does. Compared with it by test.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Example, Judged
from tunesmith.recipes.method import KtoMethod
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train import loss as rows
from tunesmith.train import packing
from tunesmith.train.logps import answers, reference_answers
from tunesmith.train.method import Batch, Loss, Method, Model, Share, Work
from tunesmith.train.pairs import preferred
from tunesmith.train.run import train
from tunesmith.train.tools import Tools
from tunesmith.train.trainer import Exact

KL = "kl_"


class KtoTrainer(Exact, KTOTrainer):
    """TRL's, made exact."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Rows are encoded already."""
        return dataset


def arguments(common: dict[str, Any], work: Work) -> KTOConfig:
    """TRL would cut rows at 1,024 tokens. Its loss is not used, but its model, adapter, optimizer and loop."""
    return KTOConfig(**common, max_length=None)


def sample(example: Example) -> Dataset:
    return Dataset.from_dict({"prompt_ids": [[0]], "completion_ids": [[0]], "label": [True]})


def collate(examples: Sequence[Judged], pad_id: int) -> Batch:
    """The rows as `loss.collate` makes them, the mismatched rows likewise under names that begin with kl_, and `label` [B]."""
    return _with_mismatched(rows.collate, examples, pad_id)


def pack(examples: Sequence[Judged], pad_id: int) -> Batch:
    """The same in two lines without padding, as `packing.pack` makes them."""
    return _with_mismatched(packing.pack, examples, pad_id)


def _with_mismatched(
    together: Callable[[Sequence[EncodedRow], int], Batch], examples: Sequence[Judged], pad_id: int
) -> Batch:
    given = [example.row for example in examples]
    mismatched = [_answered_by(asked, other) for asked, other in zip(given, given[-1:] + given[:-1], strict=True)]
    kl = {f"{KL}{name}": value for name, value in together(mismatched, pad_id).items()}
    return together(given, pad_id) | kl | {"label": torch.tensor([example.label for example in examples])}


def _answered_by(asked: EncodedRow, other: EncodedRow) -> EncodedRow:
    """The prompt of one row with the answer of another."""
    prompt, start = asked.ids[: asked.loss_mask.index(True)], other.loss_mask.index(True)
    mask = [False] * len(prompt) + list(islice(other.loss_mask, start, None))
    return EncodedRow([*prompt, *islice(other.ids, start, None)], mask)


def num_answers(batch: Batch) -> int:
    return len(batch["label"])


def loss(model: Model, batch: Batch, work: Work) -> Loss:
    method = work.recipe.method
    assert isinstance(method, KtoMethod)
    kl_batch = {name.removeprefix(KL): value for name, value in batch.items() if name.startswith(KL)}
    with torch.no_grad():
        strayed_B = answers(model, kl_batch, fused_head=work.fused_head).logps_B
    strayed_B = strayed_B - reference_answers(model, kl_batch, fused_head=work.fused_head).logps_B
    kl = strayed_B.mean().clamp(min=0)
    given = {name: value for name, value in batch.items() if name in kl_batch}
    policy, reference = (score(model, given, fused_head=work.fused_head) for score in (answers, reference_answers))
    ratios_B, good_B = policy.logps_B - reference.logps_B, batch["label"]
    sign_B = torch.where(good_B, 1.0, -1.0)
    weights_B = torch.where(good_B, method.desirable_weight, method.undesirable_weight)
    losses_B = weights_B * (1 - torch.sigmoid(method.beta * sign_B * (ratios_B - kl)))
    return Loss(losses_B.sum(), torch.tensor(len(losses_B)), numbers(method.beta * ratios_B.detach(), good_B, kl))


def numbers(rewards_B: torch.Tensor, good_B: torch.Tensor, kl: torch.Tensor) -> dict[str, Share]:
    """As of pairs (`pairs.numbers`), taking each good answer of the batch with each bad one."""
    good, bad = rewards_B[good_B], rewards_B[~good_B]
    found = {
        "rewards/accuracies": preferred(good[:, None], bad[None, :]),
        "rewards/margins": good[:, None] - bad[None, :],
        "rewards/chosen": good,
        "rewards/rejected": bad,
        "kl": kl[None],
    }
    return {name: Share(value.sum(), torch.tensor(value.numel())) for name, value in found.items()}


METHOD = Method(KtoTrainer, arguments, sample, collate, num_answers, loss, pack=pack)


def run(recipe: Recipe, folder: RunFolder, tools: Tools) -> dict[str, Any] | None:
    """The run's result, or None when it was paused or cancelled. Raises what `train` raises."""
    return train(recipe, folder, tools, METHOD)
