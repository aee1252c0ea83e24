"""TRL's own trainers, padded and with TRL's own batches, on the built-in base: what our losses are compared with."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig

from tunesmith.data import dataset
from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Example
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.catalog import find_base
from tunesmith.models.loader import Head, load_base
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.run import Recipe, parse
from tunesmith.train.method import Method, Work

from .preferences import write

BASE = find_base("tunesmith/tiny")
TOKENIZER = load_tokenizer(BASE.folder)


def examples(folder: Path, rows: list[dict[str, Any]], recipe: Recipe) -> list[Example]:
    """The rows as a run opens them."""
    write(folder / "rows.jsonl", rows)
    found = dataset.build(DataRecipe(train="rows.jsonl"), folder, TOKENIZER, max_length=512, seed=1, method=recipe.method)
    return list(found.train)


def parts(row: EncodedRow) -> tuple[list[int], list[int]]:
    """Prompt and answer, up to the last token that trains: what stands after it no prediction sees."""
    start, end = row.loss_mask.index(True), len(row.ids) - row.loss_mask[::-1].index(True)
    return row.ids[:start], row.ids[start:end]


def trl(trainer: type, config: type, columns: dict[str, list[Any]], folder: Path, *, head: Head = "words", **options: Any) -> Any:
    """A trainer of TRL's over the rows `columns` with a LoRA that is no longer at its start, so that all gradients are felt."""
    model = load_base(BASE, "none", head=head)
    made = trainer(
        model=model,
        args=config(
            output_dir=str(folder), use_cpu=True, bf16=False, fp16=False, activation_checkpointing=False, report_to="none",
            per_device_train_batch_size=1000, remove_unused_columns=False, disable_tqdm=True, **options,
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=TOKENIZER,
        peft_config=LoraConfig(
            r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM" if head == "words" else "SEQ_CLS"
        ),
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.model.named_parameters():
        if parameter.requires_grad and ("lora_B" in name or "score" in name):
            parameter.data.normal_(0, 0.02, generator=generator)
    return made


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def ours(
    method: Method, model: torch.nn.Module, rows: list[Example], recipe: Recipe, micro: int, *, packed: bool
) -> torch.Tensor:
    """Our loss of one step over `rows` in micro-batches, padded or in lines without padding."""
    work = Work(recipe, BASE, rows, len(rows), [], "", "cpu", packed)
    together = method.pack if packed else method.collate
    assert together is not None
    batches = [together(rows[k : k + micro], TOKENIZER.pad_token_id) for k in range(0, len(rows), micro)]
    num_terms = sum(method.num_terms(batch) for batch in batches)
    return torch.stack([method.loss(model, batch, work).total for batch in batches]).sum() / num_terms


def recipe(**method: Any) -> Recipe:
    return parse({"method": method, "data": {"train": "rows.jsonl"}})
