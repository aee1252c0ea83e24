"""Measures contestants in turns: a round is one load, the same prompts, everybody once, one at a time."""

import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import psutil

from bench.serve.bases import Prompts
from bench.serve.client import Ask, Burst, PeerFailed, Said
from bench.serve.peers import Peer, Pool, Wanted

MOST_CORES_OF_OTHERS = 0.2
"""More than that beside us, and the rows say so."""


@dataclass(frozen=True)
class Load:
    """So many requests at once."""

    at_once: int
    num_prompt: int = 64
    num_completion: int = 64
    is_ragged: bool = False
    """Prompts of 8 to 2 x num_prompt tokens, completions of 8 to 2 x num_completion."""

    def __str__(self) -> str:
        lengths = f"{self.num_prompt} in, {self.num_completion} out"
        return f"{self.at_once} at once, {'ragged' if self.is_ragged else lengths}"

    def asks(self, prompts: Prompts) -> list[Ask]:
        asks = []
        for number in range(self.at_once):
            # Spread evenly and shuffled by a fixed stride, so that every round has the same lengths.
            part = (number * 7 % self.at_once) / max(1, self.at_once - 1) if self.is_ragged else None
            num_in, num_out = self.num_prompt, self.num_completion
            if part is not None:
                num_in, num_out = round(8 + part * (2 * num_in - 8)), round(8 + (1 - part) * (2 * num_out - 8))
            tokens = prompts.tokens(num_in)
            asks.append(Ask(tokens, prompts.text(tokens), num_out))
        return asks


ONE_THREAD = ("--threads", "1")
"""`generate` is measured with one thread too: where operations are small, that is faster."""


@dataclass(frozen=True)
class Contestant:
    """A peer, and which of its adapters the requests name in turn."""

    wanted: Wanted
    adapters: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        kind = "PEFT adapter_names" if self.wanted.kind == "generate" and self.adapters else self.wanted.kind
        return f"{kind}, 1 thread" if self.wanted.options == ONE_THREAD else kind

    def own(self, asks: Sequence[Ask]) -> list[Ask]:
        if not self.adapters:
            return list(asks)
        return [replace(ask, adapter=self.adapters[number % len(self.adapters)]) for number, ask in enumerate(asks)]


@dataclass
class Taken:
    """What one contestant made, round by round."""

    rates: list[float] = field(default_factory=list)
    said: list[list[Said]] = field(default_factory=list)
    error: str = ""


async def warm(peer: Peer, asks: list[Ask], *, is_first: bool) -> None:
    """Brings the peer's pages and threads back; the first time with the load's own shape, for what is compiled on demand."""
    some = asks if is_first else asks[:1]
    await peer.burst([replace(ask, max_tokens=4) for ask in some])


Rate = Callable[[Peer, list[Ask], Prompts], Awaitable[tuple[float, Burst]]]
"""How a burst becomes tokens per second."""


async def whole_rate(peer: Peer, asks: list[Ask], prompts: Prompts) -> tuple[float, Burst]:
    burst = await peer.burst(asks)
    return burst.rate, burst


async def decode_rate(peer: Peer, asks: list[Ask], prompts: Prompts) -> tuple[float, Burst]:
    """Tokens per second after the first: the time for one token each, of other prompts as long, is taken off."""
    fresh = [prompts.tokens(len(ask.prompt)) for ask in asks]
    one = [replace(ask, prompt=tokens, text=prompts.text(tokens), max_tokens=1) for ask, tokens in zip(asks, fresh, strict=True)]
    first = await peer.burst(one)
    burst = await peer.burst(asks)
    num_tokens = sum(said.num_tokens - 1 for said in burst.said)
    return num_tokens / max(1e-9, burst.seconds - first.seconds), burst


async def interleave(
    pool: Pool, load: Load, contestants: Sequence[Contestant], prompts: Prompts, *,
    rate: Rate = whole_rate, rounds: int | None = None,
) -> dict[Contestant, Taken]:
    """All contestants in every round; one that fails is out, and says why."""
    taken = {contestant: Taken() for contestant in contestants}
    for number in range(rounds or pool.bench.rounds):
        asks = load.asks(prompts)
        warm_asks = load.asks(prompts)
        # The order turns around from round to round, so that nobody always comes after the same one.
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            mine = taken[contestant]
            if mine.error:
                continue
            try:
                peer = await pool.awake(contestant.wanted)
                await warm(peer, contestant.own(warm_asks), is_first=not number)
                value, burst = await rate(peer, contestant.own(asks), prompts)
            except PeerFailed as error:
                mine.error = str(error)
                say(f"  {contestant.label}: {error}")
                continue
            mine.rates.append(value)
            mine.said.append(burst.said)
            say(f"  {load}, round {number + 1}: {contestant.label} {contestant.wanted.quantize} {value:.0f} tok/s")
    return taken


def equal_share(ours: Taken, theirs: Taken, prompts: Prompts) -> str:
    """How many greedy answers are the same, in words; in tokens where both tell them."""
    pairs = [(a, b) for mine, other in zip(ours.said, theirs.said, strict=False) for a, b in zip(mine, other, strict=False)]
    same = 0
    for a, b in pairs:
        if a.tokens is not None and b.tokens is not None:
            same += a.tokens == b.tokens
        else:
            same += _text(a, prompts) == _text(b, prompts)
    return f"{same} of {len(pairs)} answers equal" if pairs else ""


def _text(said: Said, prompts: Prompts) -> str:
    return said.text if said.tokens is None else prompts.text(list(said.tokens))


class Others:
    """What the rest of the machine computes while we measure."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._before = _others_seconds()

    def warning(self) -> str:
        """Empty when it was quiet."""
        spent = sum(seconds - self._before.get(key, 0.0) for key, seconds in _others_seconds().items())
        # A child that ended comes with all it ever computed, so this may be too much, never too little.
        cores = min(spent / (time.perf_counter() - self._start), psutil.cpu_count() or 1)
        return f"not quiet: others used up to {cores:.1f} cores meanwhile" if cores > MOST_CORES_OF_OTHERS else ""


def _others_seconds() -> dict[tuple[int, float], float]:
    """(pid, time of birth) -> processor seconds, children that ended included, of all processes but ours."""
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    every = psutil.process_iter(["pid", "create_time", "cpu_times"])
    return {
        (info["pid"], info["create_time"]): float(sum(info["cpu_times"][:4]))
        for info in (process.info for process in every)
        if info["pid"] not in ours and info["cpu_times"] is not None
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
