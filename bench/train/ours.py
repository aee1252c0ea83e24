"""Tunesmith's own trainer as a contestant: the same functions that a run calls, on the rows of the measurement.

    python -m bench.train.ours BASE STEPS.json QUANTIZATION --threads 2 [--set compute.packing_length=512]
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from bench.train.turns import ALPHA, BATCH, BETAS, RANK, RATE, SEED, Turns, read
from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.catalog import find_base
from tunesmith.models.loader import load_base
from tunesmith.recipes.run import Recipe, parse
from tunesmith.train import packing
from tunesmith.train.method import Work
from tunesmith.train.sft import METHOD
from tunesmith.train.trainer import StepDone


def recipe(base: str, quantization: str, packing_length: int | None) -> Recipe:
    return parse({
        "base": base,
        "quantization": quantization,
        "seed": SEED,
        "data": {"train": "unused.jsonl"},
        "adapter": {"rank": RANK, "alpha": ALPHA},
        "compute": {"packing_length": packing_length},
        "method": {"epochs": 1, "batch_size": BATCH, "micro_batch_size": BATCH, "learning_rate": RATE, "warmup_ratio": 0,
                   "schedule": "constant", "adam_beta2": BETAS[1]},
    })


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("steps")
    parser.add_argument("quantization", choices=["none", "nf4"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--packing-length", type=int)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(args.threads)
    steps = read(args.steps)
    turns = Turns(steps)
    base = find_base(args.base)
    model = load_base(base, args.quantization)
    rows = [EncodedRow(row["ids"], row["mask"]) for step in steps for row in step]
    numbers = [list(range(start, start + BATCH)) for start in range(0, len(rows), BATCH)]

    def at_step(done: StepDone) -> bool:
        turns.step(done.loss)
        return False

    with tempfile.TemporaryDirectory() as scratch:
        work = Work(recipe(args.base, args.quantization, args.packing_length), base, rows, len(rows), numbers, scratch, "cpu")
        work = replace(work, packs=packing.set_up(model))
        trainer = METHOD.trainer(model, load_tokenizer(Path(base.folder)), work, METHOD, None, at_step)
        turns.ready()
        trainer.train()


if __name__ == "__main__":
    main()
