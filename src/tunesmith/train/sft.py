"""Supervised fine-tuning: cross-entropy on an assistant's tokens, or on all tokens of plain text (continued pretraining)."""

from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from tunesmith.data.examples import Example, sides
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train.loss import IGNORED, collate, token_loss
from tunesmith.train.method import Batch, Loss, Method, Model, Share, Work
from tunesmith.train.packing import pack
from tunesmith.train.run import train
from tunesmith.train.tools import Tools
from tunesmith.train.trainer import Exact


class SftTrainer(Exact, SFTTrainer):
    """TRL's, made exact."""


def arguments(common: dict[str, Any], work: Work) -> SFTConfig:
    """TRL cuts rows at 1,024 tokens and masks by itself, unless it is told not to."""
    return SFTConfig(
        **common,
        max_length=None,
        packing=False,
        padding_free=False,
        completion_only_loss=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def sample(example: Example) -> Dataset:
    ids = sides(example)[0].ids
    return Dataset.from_dict({"input_ids": [ids], "labels": [ids]})


def num_terms(batch: Batch) -> int:
    return int((batch["labels"] != IGNORED).sum())


def loss(model: Model, batch: Batch, work: Work) -> Loss:
    found = token_loss(model, batch, fused_head=work.fused_head)
    return Loss(found.nll_sum, found.num_tokens, {"token_accuracy": Share(found.num_right, found.num_tokens)})


METHOD = Method(SftTrainer, arguments, sample, collate, num_terms, loss, pack=pack)


def run(recipe: Recipe, folder: RunFolder, tools: Tools) -> dict[str, Any] | None:
    """The run's result, or None when it was paused or cancelled. Raises what `train` raises."""
    return train(recipe, folder, tools, METHOD)
