"""Tokens per second of bursts: base alone, adapters mixed, ragged, int8."""

from bench.serve.bases import FOUR, FOUR_WIDE, Prompts
from bench.serve.peers import TWO_REPLICAS, Pool, Wanted
from bench.serve.report import Row, compared
from bench.serve.rounds import ONE_THREAD, Contestant, Load, Taken, decode_rate, equal_share, interleave

BASE_OVER_GENERATE, BASE_OVER_VLLM = 1.25, 2.0
MIXED_OVER_VLLM = 3.0
MIXED_OVER_BASE = {32: 0.75, 8: 0.65}
INT8_OVER_BEST = 1.8

PEERS_MIXED: tuple[tuple[str, tuple[str, ...]], ...] = (("vllm", ()), ("generate", ()), ("generate", ONE_THREAD))


def ours(base: str, quantize: str = "none", *, holds: tuple[str, ...] = FOUR) -> Contestant:
    """Our engine, asked for its base; it holds adapters all the while."""
    return Contestant(Wanted("ours", base, holds, quantize))


def peers(base: str) -> list[Contestant]:
    kinds = [Contestant(Wanted(kind, base)) for kind in ("generate", "vllm", "transformers serve")]
    return [Contestant(Wanted("generate", base, options=ONE_THREAD)), *kinds]


def rows_of(name: str, load: str, taken: dict[Contestant, Taken], prompts: Prompts, floors: dict[str, float]) -> list[Row]:
    """One row for each that is not the first."""
    first, *others = taken
    mine = taken[first]
    rows = []
    for other in others:
        them = taken[other]
        note = them.error or mine.error or equal_share(mine, them, prompts)
        floor = floors.get(other.label)
        rows.append(compared(name, load, other.label, mine.rates, them.rates, at_least=floor, note=note))
    return rows


def _loads(pool: Pool, base: str) -> list[Load]:
    out = {"tiny": 64, "135m": 32, "410m": 16}[base]
    counts = {"tiny": (1, 8, 32), "135m": (1, 8, 32), "410m": (1, 8)}[base]
    return [Load(count, num_completion=out) for count in counts]


def _rounds(pool: Pool, base: str) -> int:
    return pool.bench.rounds if base == "tiny" else min(2, pool.bench.rounds)


async def base_alone(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    generates = {"generate": BASE_OVER_GENERATE, "generate, 1 thread": BASE_OVER_GENERATE}
    floors = {**generates, "vllm": BASE_OVER_VLLM} if base == "tiny" else {}
    rows = []
    one, two = ours(base), Contestant(Wanted(TWO_REPLICAS, base))
    for load in _loads(pool, base):
        contestants = [one, two, *peers(base)] if base == "tiny" and load.at_once > 1 else [one, *peers(base)]
        taken = await interleave(pool, load, contestants, prompts, rounds=_rounds(pool, base))
        twice = taken.pop(two, None)
        rows += rows_of(name, str(load), taken, prompts, floors)
        if twice is not None:
            others = {each: result for each, result in taken.items() if each is not one}
            rows += rows_of(name, f"{load}, 2 replicas", {two: twice} | others, prompts, {})
    return rows


async def mixed(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Four adapters of ranks 8 and 16 in turn; and ours against ours without adapters, in the same rounds."""
    alone = ours(base)
    four = Contestant(alone.wanted, FOUR)
    them = [Contestant(Wanted(kind, base, FOUR, options=more), FOUR) for kind, more in PEERS_MIXED]
    rows = []
    for load in _loads(pool, base):
        if load.at_once not in MIXED_OVER_BASE:
            continue
        taken = await interleave(pool, load, [four, *them, alone], prompts, rounds=_rounds(pool, base))
        floor = MIXED_OVER_VLLM if (base, load.at_once) == ("tiny", 32) else None
        them_only = {each: result for each, result in taken.items() if each is not alone}
        rows += rows_of(name, str(load), them_only, prompts, {"vllm": floor} if floor else {})
        least = MIXED_OVER_BASE[load.at_once] if base in ("tiny", "135m") else None
        mine, its = taken[four], taken[alone]
        note = mine.error or its.error
        rows.append(compared(name, str(load), "ours, base alone", mine.rates, its.rates, at_least=least, note=note))
    return rows


async def wide(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Four adapters of rank 64, and four of 8 and 16 on an int8 base: reported, no target."""
    rows = []
    for alone, adapters, what in (
        (ours(base, holds=FOUR_WIDE), FOUR_WIDE, "ours, base alone; rank 64"),
        (ours(base, "int8"), FOUR, "ours, base alone; int8"),
    ):
        contestant = Contestant(alone.wanted, adapters)
        for load in (Load(8), Load(32)):
            taken = await interleave(pool, load, [contestant, alone], prompts)
            note = taken[contestant].error or taken[alone].error
            rows.append(compared(name, str(load), what, taken[contestant].rates, taken[alone].rates, note=note))
    return rows


async def ragged(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """`generate` pads to the longest prompt and goes on to the longest answer; only what was asked for counts."""
    load = Load(32, is_ragged=True)
    taken = await interleave(pool, load, [ours(base), *peers(base)], prompts)
    return rows_of(name, str(load), taken, prompts, {})


async def int8(pool: Pool, prompts: Prompts, name: str, base: str) -> list[Row]:
    """Decoding only, against the fastest peer in fp32 at each load; ours in fp32 beside it."""
    small, full = ours(base, "int8"), ours(base)
    rows = []
    for load in (Load(1, num_completion=32), Load(4, num_completion=32), Load(8, num_completion=32)):
        taken = await interleave(pool, load, [small, full, *peers(base)], prompts, rate=decode_rate, rounds=_rounds(pool, base))
        mine, ran = taken[small], [c for c in peers(base) if not taken[c].error]
        if ran:
            best = max(ran, key=lambda c: sorted(taken[c].rates)[len(taken[c].rates) // 2])
            what = f"{best.label} fp32, the best peer"
            failed = "; ".join(f"{c.label} failed: {t.error}" for c, t in taken.items() if t.error)
            # Who is best among some is not who is best: without one of the peers the row has no target.
            least = None if failed else INT8_OVER_BEST
            rows.append(compared(name, f"{load}, decode", what, mine.rates, taken[best].rates, at_least=least, note=failed))
        note = mine.error or taken[full].error or equal_share(mine, taken[full], prompts)
        rows.append(compared(name, f"{load}, decode", "ours fp32", mine.rates, taken[full].rates, note=note))
    return rows
