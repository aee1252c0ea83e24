"""`python -m bench.api`: what the gateway costs, against the engine asked directly and against LiteLLM's proxy, in one run.

    python -m bench.api                                        everything that needs no peer; ten minutes
    LITELLM_PYTHON=/path/python python -m bench.api            with LiteLLM, from an environment of its own
    python -m bench.api --quick --only sequential streams      these, shorter
    python -m bench.api --write-results 2026-11-21             and docs/results.md gets all that --out holds

The engine computes nothing (`bench.api.mock_engine`): what is measured is the way there. Keys, limits and usage are on.
"""

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.api import load, servers
from bench.api.load import Server, quantile
from bench.serve import report
from bench.serve.report import Row

ROOT = Path(__file__).parents[2]
PEER = "LiteLLM"


@dataclass(frozen=True)
class Bench:
    folder: Path
    litellm_python: Path | None
    rounds: int
    seconds: float
    num_streams: int

    def beside(self, things: ExitStack, **delays: float) -> tuple[Server, Server, Server | None]:
        """The engine, our gateway before it, and LiteLLM before it if it is at hand."""
        engine = things.enter_context(servers.mock_engine(self.folder, **delays))
        ours = things.enter_context(servers.gateway(self.folder, engine))
        if self.litellm_python is None:
            return engine, ours, None
        return engine, ours, things.enter_context(servers.litellm(self.folder, engine, self.litellm_python))


def sequential(bench: Bench) -> list[Row]:
    """One question after the other, in turns: milliseconds that a gateway adds."""
    with ExitStack() as things:
        engine, *gateways = bench.beside(things)
        asked = [engine, *(gateway for gateway in gateways if gateway is not None)]
        results = asyncio.run(load.sequential(asked, 200 if bench.seconds < 5 else 500, bench.rounds))
    rows = []
    for share, most in ((0.5, 1.5), (0.9, None), (0.99, 6.0)):
        added = load.added(results["ours"], results["direct"], share)
        name = f"added latency p{share * 100:g}"
        rows.append(Row("sequential", name, "-", added, unit="ms", at_most=most))
        if "litellm" in results:
            theirs = load.added(results["litellm"], results["direct"], share)
            rows.append(Row("sequential", name, PEER, added, theirs, "ms", added / theirs, at_most=1 / 3))
    failed = sum(result.failed for result in results["ours"])
    return [*rows, Row("sequential", "all rounds", "-", failed, unit="failed", at_most=0)]


def at_once(bench: Bench) -> list[Row]:
    """32 clients that ask again as soon as they are answered: questions per second."""
    rates: dict[str, list[float]] = {}
    with ExitStack() as things:
        asked = [server for server in bench.beside(things) if server is not None]
        for _ in range(bench.rounds):
            for server in asked:
                rates.setdefault(server.name, []).append(asyncio.run(load.at_once(server, 32, bench.seconds)).rate)
    rows = [report.compared("32-clients", "32 at once", "the engine itself", rates["ours"], rates["direct"], unit="1/s")]
    if "litellm" in rates:
        rows.append(report.compared("32-clients", "32 at once", PEER, rates["ours"], rates["litellm"], unit="1/s", at_least=4))
    return rows


def open_loop(bench: Bench) -> list[Row]:
    """Arrivals by chance at shares of our own capacity, which the 32 clients find first."""
    rows = []
    with ExitStack() as things:
        _, ours, peer = bench.beside(things)
        capacity = asyncio.run(load.at_once(ours, 32, bench.seconds)).rate
        for share in (0.25, 0.5, 0.75, 1.0, 1.5):
            for server in (ours, peer):
                if server is None or (server is peer and share > 0.5):  # it is past its own capacity already
                    continue
                result = asyncio.run(load.at_rate(server, share * capacity, bench.seconds))
                name = f"{share:.0%} of {capacity:.0f}/s" + ("" if server is ours else f", {PEER}")
                p50, p99 = (1000 * quantile(result.seconds, each) for each in (0.5, 0.99))
                note = f"p50 {p50:.1f} ms, {result.rate:.0f}/s good, {len(result.refused)} refused, {result.failed} failed"
                rows.append(Row("open-loop", name, "-", p99, unit="ms p99", note=note))
    return rows


def streams(bench: Bench) -> list[Row]:
    """Many streams open at once, three tokens a second each: memory, streams cut, milliseconds added to each token."""
    ramp, tokens, found = 10.0, 60, {}
    with ExitStack() as things:
        for server in bench.beside(things, first_ms=50, token_ms=333):
            if server is not None:
                found[server.name] = asyncio.run(load.streams(server, bench.num_streams, tokens, ramp))
    direct, ours, name = found["direct"], found["ours"], f"{bench.num_streams} streams"
    added = {each: 1000 * (quantile(found[each].delays, 0.99) - quantile(direct.delays, 0.99)) for each in found}
    rows = [
        Row("streams", name, "-", ours.peak_mib, unit="MiB", at_most=500),
        Row("streams", name, "-", ours.cut, unit="cut", at_most=0),
        Row("streams", name, "-", added["ours"], unit="ms added to a token, p99", at_most=20),
        Row("streams", name, "-", 1000 * quantile(ours.firsts, 0.5), unit="ms to the first token, p50"),
    ]
    if "litellm" in found:
        theirs = found["litellm"]
        note = f"{theirs.cut} cut, {theirs.peak_mib:.0f} MiB"
        ratio = added["ours"] / added["litellm"] if added["litellm"] > 0 else None
        unit = "ms added to a token, p99"
        rows.append(Row("streams", name, PEER, added["ours"], added["litellm"], unit, ratio, at_most=1 / 3, note=note))
    return rows


def overload(bench: Bench) -> list[Row]:
    """Half as many questions again as an engine of 16 slots and 100 ms each can take: what is answered, how quickly refused."""
    with ExitStack() as things:
        engine = things.enter_context(servers.mock_engine(bench.folder, first_ms=100, slots=16))
        ours = things.enter_context(servers.gateway(bench.folder, engine))
        peak = statistics.median(asyncio.run(load.at_once(ours, 16, bench.seconds)).rate for _ in range(bench.rounds))
        result = asyncio.run(load.at_rate(ours, 1.5 * peak, 2 * bench.seconds))
    name = f"150% of {peak:.0f}/s"
    return [
        Row("overload", name, "peak", result.rate, peak, "1/s good", result.rate / peak, at_least=0.9),
        Row("overload", name, "-", 1000 * quantile(result.refused, 0.99), unit="ms to a 429, p99", at_most=50),
        Row("overload", name, "-", result.unsaid, unit="429 without retry-after", at_most=0),
        Row("overload", name, "-", result.failed, unit="failed", at_most=0),
    ]


MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "sequential": sequential, "32-clients": at_once, "open-loop": open_loop, "streams": streams, "overload": overload,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.api", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", help=" ".join(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=ROOT / ".tunesmith" / "bench-api", help="data and logs")
    python = os.environ.get("LITELLM_PYTHON")
    parser.add_argument("--litellm-python", type=Path, default=python, help="of LiteLLM's environment [default: $LITELLM_PYTHON]")
    parser.add_argument("--out", type=Path, help="JSON lines are added here [default: FOLDER/rows.jsonl]")
    parser.add_argument("--write-results", metavar="DATE", help="write the section of docs/results.md from all of --out")
    return parser.parse_args()


def section(date: str, bench: Bench, rows: list[Row]) -> str:
    peer = "LiteLLM not at hand"
    if bench.litellm_python is not None:
        told = subprocess.run(
            [str(bench.litellm_python), "-c", "from importlib.metadata import version; print(version('litellm'))"],
            capture_output=True, text=True, check=False,
        )
        peer = f"LiteLLM {told.stdout.strip()}, one worker, master key, no database"
    met = [row.holds for row in rows if row.holds is not None]
    return f"""`make bench-api`, {date}: {os.cpu_count()} cores, Python {platform.python_version()}; {peer}.
Client, gateway and mock engine share the cores. Keys, limits and usage are on for ours. Added latency is the difference to asking
the engine directly, in turns; medians over rounds.

{sum(met)} of {len(met)} targets hold.

{report.markdown(rows)}
"""


def main() -> None:
    args = arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    rounds, seconds = (2, 3.0) if args.quick else (5, 8.0)
    bench = Bench(args.folder.absolute(), args.litellm_python, rounds, seconds, args.streams)
    out, rows = args.out or bench.folder / "rows.jsonl", []
    for name in args.only or MEASUREMENTS:
        print(f"{name} ...", flush=True)
        taken = MEASUREMENTS[name](bench)
        report.write_json_lines(out, taken)
        rows += taken
    print(report.plain(rows))
    if args.write_results:
        page = ROOT / "docs" / "results.md"
        text = section(args.write_results, bench, report.read_json_lines(out))
        page.write_text(report.replace_section(page.read_text(), text, "bench-api"))


if __name__ == "__main__":
    main()
