"""Reward models (Bradley and Terry 1952): a head on the base learns one number for a row, higher for the chosen answer of a pair.

The number is the head on the hidden state of the row's last token, as transformers' sequence classification has it. What is made
is a LoRA with its head: it gives scores, and no answers. The formula is that of TRL's RewardTrainer, compared with it by test.
"""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl import RewardConfig, RewardTrainer

from tunesmith.data.examples import Example, Pair
from tunesmith.recipes.method import RewardMethod
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train import pairs
from tunesmith.train.method import Batch, Loss, Method, Model, Work
from tunesmith.train.run import train
from tunesmith.train.tools import Tools
from tunesmith.train.trainer import Exact


class Trainer(Exact, RewardTrainer):
    """TRL's, made exact."""


def arguments(common: dict[str, Any], work: Work) -> RewardConfig:
    """TRL would leave out rows of more than 1,024 tokens."""
    return RewardConfig(**common, max_length=None)


def sample(example: Example) -> Dataset:
    return Dataset.from_dict({"chosen_ids": [[0]], "rejected_ids": [[0]]})


def collate(examples: Sequence[Pair], pad_id: int) -> Batch:
    """`input_ids` [2B, T], padded on the right: first all chosen rows, then all rejected."""
    return {"input_ids": pairs.collate(examples, pad_id)["input_ids"]}


def loss(model: Model, batch: Batch, work: Work) -> Loss:
    method = work.recipe.method
    assert isinstance(method, RewardMethod)
    chosen_B, rejected_B = model(input_ids=batch["input_ids"], use_cache=False).logits[:, 0].float().chunk(2)
    centred_B = method.center_rewards_coefficient * (chosen_B + rejected_B) ** 2
    losses_B = centred_B - logsigmoid(chosen_B - rejected_B)
    return Loss(losses_B.sum(), torch.tensor(len(losses_B)), pairs.numbers(chosen_B, rejected_B))


METHOD = Method(Trainer, arguments, sample, collate, pairs.num_pairs, loss, head="score")


def run(recipe: Recipe, folder: RunFolder, tools: Tools) -> dict[str, Any] | None:
    """The run's result, or None when it was paused or cancelled. Raises what `train` raises."""
    return train(recipe, folder, tools, METHOD)
