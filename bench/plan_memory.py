"""The plan's bytes beside those that training really holds, for the shapes and adapters that the plan promises to know.

    python -m bench.plan_memory [--shapes smollm2-135m pythia-410m] [--kinds lora qlora full]

Two steps of the real trainer on rows of noise, unpacked, on a CPU in fp32. Live tensors are counted as torch makes and frees them
(train/peak.py); --mem-tracker counts with torch's own MemTracker as well, which knows no frozen weights, so for all weights only.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM

from bench.make_shaped_model import SHAPES, write
from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.catalog import find_base
from tunesmith.models.loader import load_base
from tunesmith.plan.memory import peak
from tunesmith.plan.shapes import of_folder
from tunesmith.recipes.run import parse
from tunesmith.train import preflight, sft
from tunesmith.train.method import Work
from tunesmith.train.peak import PeakBytes, held_by
from tunesmith.train.trainer import Exact

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"type": "lora"}},
    "qlora": {"adapter": {"type": "lora"}, "quantization": "nf4"},
    "full": {"adapter": {"type": "full"}},
}
TOKENS, SCORED = 256, 128
"""Of each row, and those of them that train."""
BATCHES = (1, 4)
STEPS = 2
"""The second one has the optimizer's moments from its begin."""
MIB = 2**20


def make_work(folder: Path, scratch: str, kind: str, batch: int) -> Work:
    recipe = parse(KINDS[kind] | {
        "base": str(folder), "data": {"train": "noise"}, "compute": {"packing": False, "recompute": "none"},
        "method": {"batch_size": batch, "micro_batch_size": batch, "epochs": 1, "learning_rate": 1e-4},
    })
    noise = torch.Generator().manual_seed(0)
    mask = [False] * (TOKENS - SCORED) + [True] * SCORED
    rows = [EncodedRow(torch.randint(5, 4000, (TOKENS,), generator=noise).tolist(), mask) for _ in range(STEPS * batch)]
    steps = [list(range(number * batch, (number + 1) * batch)) for number in range(STEPS)]
    return Work(recipe, find_base(str(folder)), rows, len(rows), steps, scratch, "cpu")


def make_trainer(work: Work) -> Exact:
    model = load_base(work.base, work.recipe.quantization)
    trainer = sft.METHOD.trainer(model, load_tokenizer(work.base.folder), work, sft.METHOD, None, lambda done: False)
    assert isinstance(trainer, Exact)
    return trainer


def measured(work: Work) -> int:
    trainer = make_trainer(work)
    with PeakBytes(held_by(trainer.model)) as watched:
        trainer.train()
    return watched.peak


def tracked(work: Work) -> int:
    trainer, tracker = make_trainer(work), MemTracker()
    tracker.track_external(trainer.model)
    with tracker:
        trainer.train()
    found: dict[Any, dict[str, int]] = tracker.get_tracker_snapshot("peak")
    return next(parts["Total"] for device, parts in found.items() if device.type == "cpu")


def planned(work: Work) -> int:
    shape = of_folder(work.base.folder)
    return peak(preflight.planned(work, sft.METHOD, shape, 0, work.steps).phases).total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES), default=["smollm2-135m", "pythia-410m"])
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS))
    parser.add_argument("--mem-tracker", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"| shape | trains | rows of {TOKENS} | planned MiB | measured MiB | error % |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for shape in args.shapes:
            folder = Path(name) / shape
            write(AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.float32), folder)
            for kind in args.kinds:
                for batch in BATCHES:
                    work = make_work(folder, name, kind, batch)
                    told, found = planned(work), measured(work)
                    error = 100 * (told / found - 1)
                    line = f"| {shape} | {kind} | {batch} | {told / MIB:,.0f} | {found / MIB:,.0f} | {error:+.1f} |"
                    if args.mem_tracker and kind == "full":
                        line += f" MemTracker: {tracked(work) / MIB:,.0f}"
                    print(line, flush=True)


if __name__ == "__main__":
    main()
