"""Tokens per second of the embedded engine, greedy, without HTTP: so many requests at once, each of 40 tokens in and 64 out.

    python bench/engine_speed.py --base tunesmith/tiny --threads 1
"""

import argparse
import queue
import random
import statistics
import time

import torch

from tunesmith.engine.build import build_runner
from tunesmith.engine.core import Core
from tunesmith.engine.sequence import Sampling, Sequence
from tunesmith.engine.text import TextStream
from tunesmith.models.catalog import find_base

NUM_PROMPT, NUM_COMPLETION = 40, 64


def seconds(core: Core, count: int, vocabulary: int) -> float:
    done: queue.Queue[None] = queue.Queue()
    dice = random.Random(count)
    sequences = [
        Sequence(
            id=number,
            tokens=[dice.randrange(vocabulary) for _ in range(NUM_PROMPT)],
            sampling=Sampling(NUM_COMPLETION, temperature=0),
            sink=lambda output: done.put(None) if output.finish_reason else None,
            text=TextStream(lambda tokens: ""),
            end_tokens=frozenset(),
            max_positions=2048,
        )
        for number in range(count)
    ]
    start = time.perf_counter()
    for sequence in sequences:
        core.add(sequence)
    for _ in sequences:
        done.get()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="tunesmith/tiny")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = find_base(args.base)
    runner = build_runner(base, args.quantization)
    core = Core(runner, on_thread_start=lambda: torch.set_num_threads(args.threads))
    core.start()
    vocabulary = runner.model.config.get_text_config().vocab_size
    seconds(core, 4, vocabulary)
    for count in (1, 8, 32):
        took = statistics.median(seconds(core, count, vocabulary) for _ in range(args.repeats))
        print(f"{count:3d} at once: {count * NUM_COMPLETION / took:7.0f} tokens/s")
    core.stop()


if __name__ == "__main__":
    main()
