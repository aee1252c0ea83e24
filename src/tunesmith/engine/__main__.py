"""`python -m tunesmith.engine --base ID --socket PATH`: loads a base, then answers until it is told to stop.

With --die-with-parent it holds its stdin open, and goes when the other end is closed: however its parent ends, no engine is left.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from aiohttp import web

from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.engine.answers import Served
from tunesmith.engine.build import build_runner
from tunesmith.engine.core import Core
from tunesmith.engine.server import Server
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.errors import TunesmithError
from tunesmith.models.catalog import find_base

SHUTDOWN_SECONDS = 1.0
"""How long open answers may go on after the order to stop."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tunesmith.engine", description=__doc__)
    parser.add_argument("--base", required=True, help="id of a base, or the path of its folder")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="Unix socket to listen on")
    where.add_argument("--port", type=int, help="port of 127.0.0.1 to listen on; 0 takes a free one")
    parser.add_argument("--models-dir", type=Path, help="folder of bases")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 means all cores")
    parser.add_argument("--die-with-parent", action="store_true", help="end when stdin is closed")
    return parser.parse_args()


def watch_parent(socket: Path | None) -> None:
    """Ends this process when stdin does. Not gently: the parent, who could be waiting for an answer, is gone.

    Not by sys.stdin: a thread that waits in it makes an ordinary exit of the process fail.
    """
    while os.read(0, 4096):
        pass
    if socket is not None:
        socket.unlink(missing_ok=True)
        with suppress(OSError):
            # The folder that the parent made for the socket; one with anything else in it stays.
            socket.parent.rmdir()
    os._exit(0)


def load(args: argparse.Namespace) -> Served:
    """Everything but the server; the core's thread runs. Raises TunesmithError."""
    threads = args.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    base = find_base(args.base, args.models_dir)
    tokenizer = load_tokenizer(base.folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    runner = build_runner(base, args.quantization, device=device, dtype=dtype)
    # Again in the core's own thread: OpenMP keeps the number for each thread that calls it.
    # A core that died takes the process along: the desk then starts another one.
    core = Core(runner, on_thread_start=partial(torch.set_num_threads, threads), on_death=partial(os._exit, 70))
    core.start()
    end_tokens = runner.end_tokens() | {tokenizer.eos_token_id}
    return Served(base, args.quantization, Vocabulary(tokenizer), core, end_tokens, os.environ.get("TUNESMITH_ENGINE_KEY", ""))


async def serve(args: argparse.Namespace, served: Served) -> None:
    """Listens until SIGTERM or SIGINT."""
    runner = web.AppRunner(Server(served).app(), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    site = web.UnixSite(runner, str(args.socket)) if args.socket else web.TCPSite(runner, "127.0.0.1", args.port)
    await site.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    where = args.socket or f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    print(f"{served.base.id} ({served.quantization}) answers at {where}", flush=True)
    await stop.wait()
    await runner.cleanup()
    served.core.stop()


def main() -> None:
    args = arguments()
    if args.die_with_parent:
        threading.Thread(target=watch_parent, args=(args.socket,), name="watch-parent", daemon=True).start()
    try:
        served = load(args)
    except TunesmithError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    asyncio.run(serve(args, served))


if __name__ == "__main__":
    main()
