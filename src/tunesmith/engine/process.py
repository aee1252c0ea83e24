"""Loads what an engine process serves: tokenizer, base, core. Imported by name once the socket is open, for it imports torch."""

import argparse
import os
from collections.abc import Callable
from functools import partial

import torch

from tunesmith.data.answers import end_token
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.engine.answers import Served
from tunesmith.engine.build import build_runner
from tunesmith.engine.core import Core
from tunesmith.engine.int8 import int8_weight
from tunesmith.engine.loading import Progress
from tunesmith.engine.matmul import Plain, Weight
from tunesmith.engine.server import Server
from tunesmith.engine.threads import Threads, serial_tokens
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.models.catalog import Base, find_base

PARITY = ".parity"
"""Folder beside the bases: which of them were compared with transformers before, so that it need not be imported again."""


def load(args: argparse.Namespace, progress: Progress) -> Server:
    """Everything but the socket; the core's thread runs. Raises TunesmithError."""
    base = find_base(args.base, args.models_dir)
    tokenizer = load_tokenizer(base.folder)
    progress.reach("weights")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quantize = None if args.quantize == "none" else args.quantize
    threads = _threads(args.threads or len(os.sched_getaffinity(0)), base, device, int8_weight if quantize == "int8" else Plain)
    # How weights are held is chosen by what is fastest for decode steps.
    threads.use(num_tokens=1)
    runner = build_runner(
        base,
        args.quantization,
        device=device,
        dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        quantize=quantize,
        parity_dir=args.models_dir / PARITY if args.models_dir is not None else None,
    )
    progress.reach("warm-up")
    threads.forget()
    runner.before_step = threads.use
    # A core that died takes the process along: the desk then starts another one.
    core = Core(runner, on_death=partial(os._exit, 70), set_threads=threads.set_most)
    taught = end_token(tokenizer)
    end_tokens = runner.end_tokens() | {tokenizer.eos_token_id} | ({taught} if taught is not None else set())
    key = os.environ.get("TUNESMITH_ENGINE_KEY", "")
    server = Server(Served(base, args.quantization, Vocabulary(tokenizer), core, end_tokens, key, runner.mode))
    core.start()
    return server


def _threads(most: int, base: Base, device: str, make: Callable[[torch.Tensor], Weight]) -> Threads:
    torch.set_num_threads(most)
    return Threads(most, serial_tokens(base.hidden_size, most, make) if device == "cpu" else 0)
