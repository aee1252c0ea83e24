"""LLaMA-Factory as a contestant, in an environment of its own: its defaults, or with activation checkpointing off.

    PYTHON-OF-LLAMAFACTORY -m bench.train.llamafactory_peer BASE STEPS.json QUANTIZATION --threads 2 [--best]

It gets the encoded rows (`tokenized_path`), so that every step has the tokens that the others have.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback

from bench.train.turns import ALPHA, BATCH, BETAS, RANK, RATE, SEED, Turns, read


class Tell(TrainerCallback):  # type: ignore[misc]
    def __init__(self, turns: Turns):
        self.turns = turns

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.turns.ready()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.turns.step(logs["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("steps")
    parser.add_argument("quantization", choices=["none", "nf4"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--best", action="store_true")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(args.threads)
    steps = read(args.steps)
    rows = [
        {"input_ids": row["ids"], "attention_mask": [1] * len(row["ids"]), "images": None, "videos": None, "audios": None,
         "labels": [id if trains else -100 for id, trains in zip(row["ids"], row["mask"], strict=True)]}
        for step in steps for row in step
    ]
    with tempfile.TemporaryDirectory() as scratch:
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(Path(scratch) / "rows"))
        chosen: dict[str, Any] = {"disable_gradient_checkpointing": True} if args.best else {}
        if args.quantization == "nf4":
            chosen |= {"quantization_bit": 4, "quantization_method": "bnb", "quantization_type": "nf4"}
            chosen["double_quantization"] = True
        run_exp(
            {
                "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": RANK, "lora_alpha": ALPHA,
                "lora_target": "all", "model_name_or_path": args.base, "template": "empty",
                "tokenized_path": str(Path(scratch) / "rows"),
                "output_dir": str(Path(scratch) / "out"), "per_device_train_batch_size": BATCH, "max_steps": len(steps),
                "learning_rate": RATE, "lr_scheduler_type": "constant", "adam_beta2": BETAS[1], "seed": SEED, "logging_steps": 1,
                "disable_shuffling": True, "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
                "cutoff_len": 8192, "plot_loss": False, **chosen,
            },
            callbacks=[Tell(Turns(steps))],
        )


if __name__ == "__main__":
    main()
