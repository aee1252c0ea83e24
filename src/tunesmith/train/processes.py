"""Several processes that share the rows of each step: who we are among them, and starting the others on this machine.

The first process does all that is seen from outside (events, checkpoints, measuring, publishing); the others (`follower.py`) only
make steps. Who is who stands in the environment, where accelerate reads it; it exchanges the gradients. Knows no rows, no models.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed

from tunesmith.errors import InvalidRecipe
from tunesmith.recipes.run import Recipe

T = TypeVar("T")

TIMEOUT_SECONDS = 24 * 3600
"""How long the others wait for the first one while it measures and writes."""
LOOK_SECONDS = 1.0
FIRST = "TUNESMITH_FIRST_PROCESS"
"""The first one's process id, told to those that it started."""


def rank() -> int:
    """0 for the first."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def started(recipe: Recipe, folder: Path, models_dir: Path | None) -> Iterator[None]:
    """Within it there are `recipe.compute.processes`; this one is the first of them, and ends the others when it leaves.

    `recipe` is resolved: all have the same. Raises InvalidRecipe where something else started several of this.
    """
    count = recipe.compute.processes
    if FIRST not in os.environ and "WORLD_SIZE" in os.environ:
        raise InvalidRecipe(
            "This is one of several processes that torchrun or accelerate started.",
            hint="Start one; compute.processes says how many it starts.", param="compute.processes",
        )
    if count == 1 or FIRST in os.environ:
        yield
        return
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    others: list[subprocess.Popen[str]] = []
    try:
        for number in range(1, count):
            told = shared | {"RANK": str(number), "LOCAL_RANK": str(number), FIRST: str(os.getpid())}
            command = [sys.executable, "-m", "tunesmith.train.follower", str(folder), str(models_dir or "")]
            other = subprocess.Popen(command, env=os.environ | told, stdin=subprocess.PIPE, stdout=sys.stderr, text=True)
            others.append(other)
            assert other.stdin is not None
            other.stdin.write(recipe.model_dump_json())
            other.stdin.close()
        os.environ.update(shared | {"RANK": "0", "LOCAL_RANK": "0"})
        yield
    finally:
        for name in (*shared, "RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
        for other in others:
            other.kill()
            other.wait()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def end_with_first() -> None:
    """A process that was started here ends when the first one is gone, however that went."""
    first = int(os.environ[FIRST])

    def watch() -> None:
        while os.getppid() == first:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def share(batches: Sequence[T]) -> tuple[list[T], int]:
    """This process's part of a step's batches, and how many of them count: all have as many, so that nobody waits for gradients
    that do not come."""
    mine = list(batches[rank() :: world()])
    return mine + [batches[0]] * (-(-len(batches) // world()) - len(mine)), len(mine)


def agreed(stop: bool) -> bool:
    """What the first process says, to all."""
    if world() == 1:
        return stop
    said = torch.tensor([int(stop)], device="cuda" if torch.cuda.is_available() else "cpu")
    distributed.broadcast(said, 0)
    return bool(said.item())


def summed(numbers: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of each name the sums over all processes; all know the same names."""
    if world() == 1:
        return numbers
    names = sorted(numbers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    values = torch.tensor([numbers[name] for name in names], dtype=torch.float64, device=device)
    distributed.all_reduce(values)
    return dict(zip(names, values.tolist(), strict=True))
