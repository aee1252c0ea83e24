"""Tokens per second of the embedded engine, greedy, without HTTP, beside `model.generate` in a static batch: interleaved, ratios.

So many requests at once, each of 40 tokens in and 64 out, prefill included.

    python bench/engine_speed.py --base tunesmith/tiny --threads 2
    python bench/engine_speed.py --base .tunesmith/shaped/smollm2-135m --ways generate base int8 --counts 1 8

Ways: generate (transformers), base, mixed (four adapters of ranks 8, 16, 8, 16 on all linear layers), mixed64 (rank 64), int8,
int8-mixed. Seconds are of the clock, or with --cpu of the processor, which others on the machine disturb less.
"""

import argparse
import queue
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from tunesmith.engine.build import build_runner
from tunesmith.engine.core import Core
from tunesmith.engine.sequence import Sampling, Sequence
from tunesmith.engine.text import TextStream
from tunesmith.models.artifact import AdapterInfo, save_adapter
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.loader import load_base
from tunesmith.recipes.run import Recipe

NUM_PROMPT, NUM_COMPLETION = 40, 64
RANKS = {"mixed": (8, 16, 8, 16), "mixed64": (64, 64, 64, 64)}


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    dice = random.Random(count)
    return [[dice.randrange(vocabulary) for _ in range(NUM_PROMPT)] for _ in range(count)]


def ask(core: Core, adapters: list[int], asked: list[list[int]]) -> None:
    """One completion for each prompt; adapters by turns."""
    done: queue.Queue[None] = queue.Queue()
    for number, prompt in enumerate(asked):
        core.add(Sequence(
            id=number, tokens=list(prompt), sampling=Sampling(NUM_COMPLETION, temperature=0),
            sink=lambda output: done.put(None) if output.finish_reason else None, text=TextStream(lambda tokens: ""),
            end_tokens=frozenset(), max_positions=2048, adapter=adapters[number % len(adapters)] if adapters else None,
        ))
    for _ in asked:
        done.get()


def generate(model: torch.nn.Module, asked: list[list[int]]) -> None:
    ids = torch.tensor(asked)
    with torch.inference_mode():
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_COMPLETION, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )


def make_adapter(base: Base, rank: int, seed: int, folder: Path) -> AdapterInfo:
    torch.manual_seed(seed)
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    recipe = Recipe.model_validate({"base": base.id, "data": {"train": "none.jsonl"}})
    return save_adapter(get_peft_model(load_base(base, "none"), lora), folder / f"{rank}-{seed}", base, recipe)


def engine_ways(
    base: Base, wanted: list[str], threads: int, folder: Path, cores: list[Core]
) -> dict[str, Callable[[list[list[int]]], None]]:
    """One engine in float32 and one in int8, as far as they are wanted; they are put into `cores`, to be stopped."""
    ways: dict[str, Callable[[list[list[int]]], None]] = {}
    for prefix, quantize in (("", None), ("int8-", "int8")):
        plain = quantize or "base"
        names = [name for name in wanted if name == plain or (name.startswith(prefix) and name.removeprefix(prefix) in RANKS)]
        if not names:
            continue
        runner = build_runner(base, "none", quantize=quantize)
        print(f"{plain}: {runner.mode}")
        core = Core(runner, on_thread_start=partial(torch.set_num_threads, threads))
        core.start()
        cores.append(core)
        for name in names:
            ranks = RANKS.get(name.removeprefix(prefix), ())
            infos = [make_adapter(base, rank, seed, folder) for seed, rank in enumerate(ranks)]
            ways[name] = partial(ask, core, [core.add_adapter(info).result() for info in infos])
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tunesmith/tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--cpu", action="store_true", help="count the processor's seconds")
    parser.add_argument("--ways", nargs="+", default=["generate", "base", "mixed"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = find_base(args.base)
    cores: list[Core] = []
    with tempfile.TemporaryDirectory() as folder:
        ways = engine_ways(base, args.ways, args.threads, Path(folder), cores)
    model = load_base(base, "none")
    if "generate" in args.ways:
        ways = {"generate": partial(generate, model), **ways}
    clock = time.process_time if args.cpu else time.perf_counter
    vocabulary = model.config.get_text_config().vocab_size
    for count in args.counts:
        asked = prompts(count, vocabulary)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(args.repeats + 1):
            for name, way in ways.items():
                start = clock()
                way(asked)
                if repeat:
                    rates[name].append(count * NUM_COMPLETION / (clock() - start))
        first = next(iter(ways))
        told = [f"{name} {statistics.median(each):6.0f}" for name, each in rates.items()]
        ratios = {n: statistics.median(a / b for a, b in zip(each, rates[first], strict=True)) for n, each in rates.items()}
        print(f"{count:3d} at once, tokens/s: {', '.join(told)}; to {first}: "
              + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if name != first), flush=True)
    for core in cores:
        core.stop()


if __name__ == "__main__":
    main()
