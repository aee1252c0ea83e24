"""TRL's SFTTrainer as a contestant: as its documentation has it, or with the best of its own settings for a CPU.

    python -m bench.train.trl_peer BASE STEPS.json QUANTIZATION --threads 2 [--best]

Everybody has the same rows, and trains the same tokens of them, in each step; the rest is TRL's. `--best`: no activation
checkpointing, float32 (a CPU without AMX computes bfloat16 slowly), and the caller gives rows of like length together.
"""

import argparse
import os
import tempfile
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer

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
    best = {"activation_checkpointing": False, "bf16": False, "dataset_num_proc": 2} if args.best else {}
    quantized = None
    if args.quantization == "nf4":
        quantized = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
        )
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32, quantization_config=quantized)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    rows = Dataset.from_list([
        {"input_ids": row["ids"], "completion_mask": [int(trains) for trains in row["mask"]]} for step in steps for row in step
    ])
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=scratch, per_device_train_batch_size=BATCH, max_steps=len(steps), max_length=None, use_cpu=True,
                learning_rate=RATE, lr_scheduler_type="constant", adam_beta2=BETAS[1], seed=SEED, logging_steps=1,
                disable_tqdm=True, train_sampling_strategy="sequential", shuffle_dataset=False, save_strategy="no",
                completion_only_loss=True, report_to="none", **best,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", bias="none", task_type="CAUSAL_LM"),
            callbacks=[Tell(Turns(steps))],
        )
        trainer.train()


if __name__ == "__main__":
    main()
