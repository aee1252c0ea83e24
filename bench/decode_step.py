"""Milliseconds of one decode step of the embedded engine's model, without scheduler, sampling and HTTP: interleaved, medians.

    python bench/decode_step.py --base tunesmith/tiny
    python bench/decode_step.py --base .tunesmith/shaped/smollm2-135m --quantize int8 --rows 1 8

Columns: the base with one thread, with two, and with one thread and four adapters (ranks 8, 16, 8, 16, all linear layers) mixed.
Each row of the batch stands at about 64 tokens.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from bench.engine_speed import RANKS, make_adapter
from tunesmith.engine.batch import Batch, Row
from tunesmith.engine.build import build_runner
from tunesmith.engine.runner import Runner
from tunesmith.models.catalog import find_base

LENGTH = 64


def step(runner: Runner, rows: int, threads: int, adapters: list[int]) -> float:
    """Seconds."""
    torch.set_num_threads(threads)
    asked = [Row([5], slot, LENGTH + slot % 3, adapters[slot % len(adapters)] if adapters else None) for slot in range(rows)]
    start = time.perf_counter()
    runner.model.compute(Batch(asked, runner.cache), runner.cache, torch.arange(rows))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tunesmith/tiny")
    parser.add_argument("--quantize", choices=["int8"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    base = find_base(args.base)
    runner = build_runner(base, "none", quantize=args.quantize)
    with tempfile.TemporaryDirectory() as folder:
        adapters = [runner.adapters.add(make_adapter(base, rank, seed, Path(folder))) for seed, rank in enumerate(RANKS["mixed"])]
    print(f"{base.id} {args.quantize or 'fp32'}, {runner.mode}, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'not set')}")
    with torch.inference_mode():
        for rows in args.rows:
            runner.cache.reserve(rows, 2 * LENGTH)
            ways: dict[str, Callable[[], float]] = {
                "1 thread": partial(step, runner, rows, 1, []),
                "2 threads": partial(step, runner, rows, 2, []),
                "1 thread, four adapters": partial(step, runner, rows, 1, adapters),
            }
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(args.repeats + 1):
                for name, way in ways.items():
                    taken[name].append(1e3 * way())
            told = ", ".join(f"{name} {statistics.median(each[1:]):.1f} ms" for name, each in taken.items())
            print(f"{rows:3d} rows: {told}", flush=True)


if __name__ == "__main__":
    main()
