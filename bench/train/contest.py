"""Contestants in turns: each a process that waits while another trains, the same rows for all in every step."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.serve.report import Row, median_ratio

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-3
"""Of losses, relative: float32 sums in another order; a peer in bfloat16 is told beside it."""


@dataclass
class Contestant:
    """`label` is for people, `command` what to run after the base, the steps and the quantization."""

    label: str
    python: str
    module: str
    options: tuple[str, ...] = ()


@dataclass
class Taken:
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    """Tokens that are not padding in a second, turn by turn."""
    processor_rates: list[float] = field(default_factory=list)
    """The same in a second of the processor's time: what remains of a comparison on a machine that others use."""
    peak_bytes: int = 0
    error: str = ""


class Running:
    """One contestant's process; stopped between its turns."""

    def __init__(self, contestant: Contestant, base: Path, steps: Path, quantization: str, threads: int, log: Path):
        command = [contestant.python, "-m", contestant.module, str(base), str(steps), quantization, "--threads", str(threads)]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1",
            "TRL_EXPERIMENTAL_SILENCE": "1", "DISABLE_VERSION_CHECK": "1", "TOKENIZERS_PARALLELISM": "false",
        }
        self._log = open(log, "w")  # noqa: SIM115  (lives as long as the process)
        self.process = subprocess.Popen(
            [*command, *contestant.options], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True,
        )
        self.log = log

    def wait_ready(self) -> None:
        self._read()
        self.process.send_signal(signal.SIGSTOP)

    def turn(self, steps: int) -> dict[str, Any]:
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"steps": steps}) + "\n")
        self.process.stdin.flush()
        told = self._read()
        self.process.send_signal(signal.SIGSTOP)
        return told

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("TURN "):
                told: dict[str, Any] = json.loads(line.removeprefix("TURN "))
                return told
        raise RuntimeError(f"it ended with status {self.process.wait()}; see {self.log}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


def contest(
    contestants: Sequence[Contestant], base: Path, steps: Path, quantization: str, *,
    turns: Sequence[int], threads: int, logs: Path,
) -> list[Taken]:
    """Each turn is so many steps for everybody, in an order that turns around; the first turn warms up and is not counted."""
    taken = [Taken() for _ in contestants]
    running: list[Running | None] = []
    try:
        for number, contestant in enumerate(contestants):
            name = "".join(letter if letter.isalnum() else "-" for letter in contestant.label)
            log = logs / f"{steps.stem}-{quantization}-{name}.log"
            running.append(Running(contestant, base, steps, quantization, threads, log))
            _try(running, number, taken, lambda one: one.wait_ready())
        for turn, count in enumerate(turns):
            order = list(range(len(contestants)))
            for number in order if turn % 2 == 0 else reversed(order):
                told = _try(running, number, taken, lambda one, count=count: one.turn(count))
                if told is not None:
                    _take(taken[number], told, is_counted=turn > 0)
                    say(f"  {contestants[number].label}: turn {turn + 1}, {told['tokens'] / told['seconds']:.0f} tok/s, "
                        f"{told['tokens'] / told['processor_seconds']:.0f} by processor time, loss {told['losses'][-1]:.4f}")
    finally:
        for one in running:
            if one is not None:
                one.end()
    return taken


def _try(running: list[Running | None], number: int, taken: list[Taken], do: Any) -> Any:
    """What `do` returns; a contestant that fails is out, and says why."""
    one = running[number]
    if one is None:
        return None
    try:
        return do(one)
    except (RuntimeError, OSError) as error:
        taken[number].error = str(error)
        one.end()
        running[number] = None
        return None


def _take(taken: Taken, told: dict[str, Any], *, is_counted: bool) -> None:
    taken.losses += told["losses"]
    taken.peak_bytes = told["peak_bytes"]
    if is_counted:
        taken.rates.append(told["tokens"] / told["seconds"])
        taken.processor_rates.append(told["tokens"] / told["processor_seconds"])


def rows(
    name: str, load: str, peers: Sequence[Contestant], taken: Sequence[Taken], *, by_processor: bool, rate: float | None,
    memory: float | None,
) -> list[Row]:
    """Ours, the first, against each of the others: tokens per second and peak memory."""
    ours, found = taken[0], []
    for peer, theirs in zip(peers[1:], taken[1:], strict=True):
        failed = ours.error or theirs.error
        if failed:
            found.append(Row(name, load, peer.label, note=failed))
            continue
        mine, other = (one.processor_rates if by_processor else one.rates for one in (ours, theirs))
        furthest = max(abs(a - b) / abs(b) for a, b in zip(ours.losses, theirs.losses, strict=True))
        note = "losses equal step by step" if furthest < TOLERANCE else f"losses differ by up to {furthest:.1%}"
        unit = "tok per processor second" if by_processor else "tok/s"
        middle = [sorted(series)[len(series) // 2] for series in (mine, other)]
        found.append(Row(name, load, peer.label, *middle, unit, median_ratio(mine, other), at_least=rate, note=note))
        held = [one.peak_bytes / 2**30 for one in (ours, theirs)]
        found.append(Row(name, load, peer.label, *held, "GiB at most", held[0] / held[1], at_most=memory))
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
