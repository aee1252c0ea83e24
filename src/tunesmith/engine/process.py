"""Loads what an engine process serves: tokenizer, base, core. Imported by name once the socket is open, for it imports torch."""

import argparse
import os
from functools import partial

import torch

from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.engine.answers import Served
from tunesmith.engine.build import build_runner
from tunesmith.engine.core import Core
from tunesmith.engine.loading import Progress
from tunesmith.engine.server import Server
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.models.catalog import find_base

PARITY = ".parity"
"""Folder beside the bases: which of them were compared with transformers before, so that it need not be imported again."""


def load(args: argparse.Namespace, progress: Progress) -> Server:
    """Everything but the socket; the core's thread runs. Raises TunesmithError."""
    threads = args.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    base = find_base(args.base, args.models_dir)
    tokenizer = load_tokenizer(base.folder)
    progress.reach("weights")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    runner = build_runner(
        base,
        args.quantization,
        device=device,
        dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        quantize=None if args.quantize == "none" else args.quantize,
        parity_dir=args.models_dir / PARITY if args.models_dir is not None else None,
    )
    progress.reach("warm-up")
    # Again in the core's own thread: OpenMP keeps the number for each thread that calls it.
    # A core that died takes the process along: the desk then starts another one.
    core = Core(
        runner,
        on_thread_start=partial(torch.set_num_threads, threads),
        on_death=partial(os._exit, 70),
        set_threads=torch.set_num_threads,
    )
    end_tokens = runner.end_tokens() | {tokenizer.eos_token_id}
    key = os.environ.get("TUNESMITH_ENGINE_KEY", "")
    server = Server(Served(base, args.quantization, Vocabulary(tokenizer), core, end_tokens, key, runner.mode))
    core.start()
    return server
