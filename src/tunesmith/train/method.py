"""What a training method is, to the run that trains by it: one frozen table of functions. Every other part of a run is the same.

A method's file (`sft.py`, `dpo.py`, ...) fills the table; `run.py` reads rows, `trainer.py` makes steps, `attempt.py` does what a
step's end asks for, and none of them knows which method it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import TrainingArguments

from tunesmith.data.examples import Example, num_tokens
from tunesmith.models.catalog import Base
from tunesmith.models.loader import Head
from tunesmith.recipes.run import Recipe

Batch = dict[str, torch.Tensor]
Model = torch.nn.Module


@dataclass(frozen=True)
class Work:
    """What is to be trained: a resolved recipe, the rows, and the rows of each step."""

    recipe: Recipe
    base: Base
    rows: Sequence[Example]
    rows_per_epoch: int
    steps: list[list[int]]
    scratch: str
    """A folder that exists; the trainer wants one, and nothing is written to it."""
    device: str
    packs: bool = False
    """Rows of a step stand in lines without padding (`Method.pack`)."""

    @property
    def fused_head(self) -> bool:
        return self.device != "cpu"


class Share(NamedTuple):
    """A mean that is still in two parts, so that micro-batches add up."""

    total: torch.Tensor
    count: torch.Tensor


class Loss(NamedTuple):
    """The loss of a micro-batch."""

    total: torch.Tensor
    """Sum over the terms of the batch (see `Method.num_terms`), with its graph; a step's loss is divided by the step's terms."""
    num_terms: torch.Tensor
    numbers: dict[str, Share]
    """What people want to see beside the loss, by the name that it has in events; without a graph."""


@dataclass(frozen=True)
class Method:
    """A method of training."""

    trainer: Callable[..., Any]
    """TRL's trainer of the method under `trainer.Exact`: `class SftTrainer(Exact, SFTTrainer)`."""
    arguments: Callable[[dict[str, Any], Work], TrainingArguments]
    """TRL's configuration, of the arguments that every method has (`trainer.common_arguments`) and the method's own."""
    sample: Callable[[Example], Dataset]
    """One example as TRL's constructor wants to see it. It looks at no other: batches come from `collate`."""
    collate: Callable[[Sequence[Any], int], Batch]
    """Examples and the id that pads -> a micro-batch."""
    num_terms: Callable[[Batch], int]
    """Of what a step's loss is the mean: tokens that train, pairs, answers."""
    loss: Callable[[Model, Batch, Work], Loss]
    """The loss of a micro-batch. Draws no random number but dropout's."""
    head: Head = "words"
    """What stands on the base."""
    pack: Callable[[Sequence[Any], int], Batch] | None = None
    """The same as `collate`, in one line without padding (packing.py); None where the method cannot."""
    num_packed: Callable[[Any], int] = num_tokens
    """Tokens of an example in such a line."""
