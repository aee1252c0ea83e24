"""`python -m tunesmith.engine --base ID --socket PATH`: listens at once, loads a base, answers until it is told to stop.

SIGTERM lets running answers end first; a second one does not wait. With --die-with-parent it holds its stdin open, and goes
when the other end is closed: however its parent ends, no engine is left. Imports no torch before it listens.
"""

import argparse
import asyncio
import importlib
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from tunesmith.engine.loading import Progress, listen, loading_app
from tunesmith.errors import TunesmithError

if TYPE_CHECKING:
    from tunesmith.engine.server import Server

CLOSE_SECONDS = 1.0
"""How long connections may go on when all sequences have ended."""
DRAIN_SECONDS = 30.0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tunesmith.engine", description=__doc__)
    parser.add_argument("--base", required=True, help="id of a base, or the path of its folder")
    precisions = ["none", "nf4", "int8"]
    parser.add_argument("--quantization", choices=precisions, default="none", help="precision that adapters were trained on")
    parser.add_argument("--quantize", choices=["none", "int8"], default="none", help="keep weights in int8, on a CPU")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="Unix socket to listen on")
    where.add_argument("--port", type=int, help="port of 127.0.0.1 to listen on; 0 takes a free one")
    parser.add_argument("--models-dir", type=Path, help="folder of bases")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 means all cores")
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS, help="longest wait for answers at SIGTERM")
    parser.add_argument("--die-with-parent", action="store_true", help="end when stdin is closed")
    return parser.parse_args(given)


def watch_parent(path: Path | None) -> None:
    """Ends this process when stdin does. Not gently: the parent, who could be waiting for an answer, is gone.

    Not by sys.stdin: a thread that waits in it makes an ordinary exit of the process fail.
    """
    while os.read(0, 4096):
        pass
    if path is not None:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            # The folder that the parent made for the socket; one with anything else in it stays.
            path.parent.rmdir()
    os._exit(0)


async def serve(args: argparse.Namespace, listening: socket.socket) -> None:
    """Answers until SIGTERM or SIGINT. Raises TunesmithError when the base cannot be loaded."""
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (stop_now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    progress = Progress(args.base)
    waiting = await _answering(loading_app(progress), listening.dup())
    loading = asyncio.create_task(asyncio.to_thread(_load, args, progress))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        # A load cannot be broken off, and nothing waits for it.
        os._exit(0)
    server = await loading
    await waiting.cleanup()
    runner = await _answering(server.app(), listening)
    print(f"{args.base} ({args.quantization}) answers at {_where(args, listening)}", flush=True)
    await stopping
    drained = asyncio.create_task(server.drain())
    await asyncio.wait(
        {drained, asyncio.create_task(stop_now.wait())}, timeout=args.drain_seconds, return_when=asyncio.FIRST_COMPLETED
    )
    await runner.cleanup()
    server.stop()


def _load(args: argparse.Namespace, progress: Progress) -> "Server":
    """By name, for it imports torch: until then the loading server answers."""
    return importlib.import_module("tunesmith.engine.process").load(args, progress)


async def _answering(app: web.Application, listening: socket.socket) -> web.AppRunner:
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    return runner


def _where(args: argparse.Namespace, listening: socket.socket) -> str:
    return str(args.socket) if args.socket else f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def main(given: list[str] | None = None) -> None:
    """`given` are the arguments; None takes the command line's."""
    args = arguments(given)
    if args.die_with_parent:
        threading.Thread(target=watch_parent, args=(args.socket,), name="watch-parent", daemon=True).start()
    try:
        listening = listen(args.socket or args.port)
        asyncio.run(serve(args, listening))
    except (TunesmithError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
