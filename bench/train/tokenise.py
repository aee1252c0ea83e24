"""100,000 rows from a file to packed lines, in a process of its own: ours or TRL's. Prints one JSON object.

    python -m bench.train.tokenise ours|trl BASE ROWS.jsonl --processes 2
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tunesmith.data import dataset, tokens
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.catalog import find_base
from tunesmith.recipes.data import DataRecipe
from tunesmith.train import packing


def ours(base: str, path: Path, processes: int) -> int:
    os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[:processes]))
    with tempfile.TemporaryDirectory() as cache:
        tokenizer, recipe = load_tokenizer(find_base(base).folder), DataRecipe(train=str(path))
        made = dataset.build(recipe, Path("/"), tokenizer, max_length=8192, seed=0, cache=Path(cache))
        lengths = tokens.lengths(made.train)
        window = 1024
        lines = [
            line for start in range(0, len(lengths), window)
            for line in packing.lines(range(start, min(start + window, len(lengths))), lengths[start : start + window],
                                      tokens=1024, most_rows=window)
        ]
        return len(lines)


def trl(base: str, path: Path, processes: int) -> int:
    rows = Dataset.from_json(str(path), cache_dir=tempfile.mkdtemp())
    config = SFTConfig(output_dir=tempfile.mkdtemp(), packing=True, max_length=1024, dataset_num_proc=processes, use_cpu=True,
                       bf16=False, report_to="none")
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base), args=config, train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    return len(trainer.train_dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=["ours", "trl"])
    parser.add_argument("base")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    began = time.perf_counter()
    lines = {"ours": ours, "trl": trl}[args.who](args.base, args.rows, args.processes)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print("TURN " + json.dumps({
        "lines": lines, "seconds": time.perf_counter() - began,
        "processor_seconds": sum(one.ru_utime + one.ru_stime for one in used), "peak_bytes": used[0].ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
