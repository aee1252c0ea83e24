"""Odds ratio preference optimization (Hong et al. 2024): learns the chosen answers, and in the same step to prefer them.

No reference and no supervised stage before it. Supervised is the mean over the chosen answers' tokens of a micro-batch; TRL's
ORPOTrainer, of which the formulas are, counts the prompts' tokens too. We train no prompts. Compared with TRL's by test.
"""

from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from tunesmith.data.examples import Example
from tunesmith.recipes.method import OrpoMethod
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train.logps import answers
from tunesmith.train.method import Batch, Loss, Method, Model, Share, Work
from tunesmith.train.packing import num_packed, pack_pairs
from tunesmith.train.pairs import collate, num_pairs, numbers
from tunesmith.train.run import train
from tunesmith.train.tools import Tools
from tunesmith.train.trainer import Exact


class OrpoTrainer(Exact, ORPOTrainer):
    """TRL's, made exact."""


def arguments(common: dict[str, Any], work: Work) -> ORPOConfig:
    """Its loss and its cutting of rows are not used, but its model, adapter, optimizer and loop."""
    return ORPOConfig(**common)


def sample(example: Example) -> Dataset:
    """It encodes by itself what it is given, so it is given a text."""
    return Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})


def loss(model: Model, batch: Batch, work: Work) -> Loss:
    method = work.recipe.method
    assert isinstance(method, OrpoMethod)
    # Its trainer does not put TRL's fused head on the model.
    found = answers(model, batch, fused_head=False)
    size = num_pairs(batch)
    chosen_B, rejected_B = found.means_B.chunk(2)
    nll = -found.logps_B[:size].sum() / found.lengths_B[:size].sum()
    log_odds_B = (chosen_B - rejected_B) - (log1mexp(chosen_B) - log1mexp(rejected_B))
    total = size * nll - method.beta * logsigmoid(log_odds_B).sum()
    seen = numbers(method.beta * chosen_B, method.beta * rejected_B)
    return Loss(total, torch.tensor(size), seen | {"nll": Share(nll.detach() * size, torch.tensor(size))})


def log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - e^x) for x < 0, by whichever formula keeps the digits (Maechler 2012). An x of 0 counts as just below it."""
    x = x.clamp(max=-1e-7)
    return torch.where(x > -0.6931472, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


METHOD = Method(OrpoTrainer, arguments, sample, collate, num_pairs, loss, pack=pack_pairs, num_packed=num_packed)


def run(recipe: Recipe, folder: RunFolder, tools: Tools) -> dict[str, Any] | None:
    """The run's result, or None when it was paused or cancelled. Raises what `train` raises."""
    return train(recipe, folder, tools, METHOD)
