"""Direct preference optimization (Rafailov et al. 2023): the chosen answer of a pair becomes likelier than the rejected one.

Losses: sigmoid, with `label_smoothing` the robust one of Chowdhury et al. 2024; ipo (Azar et al. 2023); simpo (Meng et al. 2024),
which needs no reference. The formulas are those of TRL's DPOTrainer and CPOTrainer, and are compared with them by test.
"""

from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer

from tunesmith.data.examples import Example
from tunesmith.recipes.method import DpoMethod
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train.logps import Answers, answers, reference_answers
from tunesmith.train.method import Batch, Loss, Method, Model, Work
from tunesmith.train.packing import num_packed, pack_pairs
from tunesmith.train.pairs import collate, num_pairs, numbers
from tunesmith.train.run import train
from tunesmith.train.tools import Tools
from tunesmith.train.trainer import Exact


class DpoTrainer(Exact, DPOTrainer):
    """TRL's, made exact."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Rows are encoded already."""
        return dataset


def arguments(common: dict[str, Any], work: Work) -> DPOConfig:
    """TRL would cut rows at 1,024 tokens. Its losses are not used, but its model, adapter, optimizer and loop."""
    return DPOConfig(**common, max_length=None)


def sample(example: Example) -> Dataset:
    return Dataset.from_dict({"prompt_ids": [[0]], "chosen_ids": [[0]], "rejected_ids": [[0]]})


def loss(model: Model, batch: Batch, work: Work) -> Loss:
    method = work.recipe.method
    assert isinstance(method, DpoMethod)
    policy = answers(model, batch, fused_head=work.fused_head)
    if method.loss == "simpo":
        losses_B, rewards_2B = simpo(policy, method)
    else:
        reference = reference_answers(model, batch, fused_head=work.fused_head)
        losses_B, rewards_2B = dpo(policy, reference, method)
    return Loss(losses_B.sum(), torch.tensor(len(losses_B)), numbers(*rewards_2B.chunk(2)))


def dpo(policy: Answers, reference: Answers, method: DpoMethod) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of the pairs, and the rewards of all rows: beta times the log ratio to the reference."""
    ratios_2B = policy.logps_B - reference.logps_B
    if method.loss == "ipo":
        chosen_B, rejected_B = (ratios_2B / policy.lengths_B).chunk(2)
        losses_B = (chosen_B - rejected_B - 1 / (2 * method.beta)) ** 2
    else:
        chosen_B, rejected_B = ratios_2B.chunk(2)
        logits_B, wrong = method.beta * (chosen_B - rejected_B), method.label_smoothing
        losses_B = (wrong * logsigmoid(-logits_B) - (1 - wrong) * logsigmoid(logits_B)) / (1 - 2 * wrong)
    return losses_B, method.beta * ratios_2B


def simpo(policy: Answers, method: DpoMethod) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of the pairs, and the rewards of all rows: beta times the mean log-probability of a token."""
    rewards_2B = method.beta * policy.means_B
    chosen_B, rejected_B = rewards_2B.chunk(2)
    return -logsigmoid(chosen_B - rejected_B - method.simpo_gamma), rewards_2B


METHOD = Method(DpoTrainer, arguments, sample, collate, num_pairs, loss, pack=pack_pairs, num_packed=num_packed)


def run(recipe: Recipe, folder: RunFolder, tools: Tools) -> dict[str, Any] | None:
    """The run's result, or None when it was paused or cancelled. Raises what `train` raises."""
    return train(recipe, folder, tools, METHOD)
