"""`python -m bench.train`: our trainer beside its peers, interleaved, on the same weights and the same rows in each step.

    python -m bench.train --data FOLDER                    everything: an hour on two quiet cores
    python -m bench.train --data FOLDER --only tiny-alpaca --quick
    python -m bench.train --data FOLDER --by-processor     ratios of processor time, on a machine that others use

FOLDER has alpaca_en_demo.json and lamini_docs_train_1260.jsonl. A second peer: --llamafactory-python (or $LLAMAFACTORY_PYTHON).
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.serve import report
from bench.serve.report import Row
from bench.serve.rounds import Others
from bench.train.contest import ROOT, Contestant, contest, rows, say
from bench.train.turns import BATCH
from tunesmith.data import dataset
from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.catalog import find_base
from tunesmith.paths import TINY
from tunesmith.recipes.data import DataRecipe
from tunesmith.train import order

SHAPES = {"tiny": None, "135m": "smollm2-135m", "410m": "pythia-410m"}
FILES = {"alpaca": "alpaca_en_demo.json", "lamini": "lamini_docs_train_1260.jsonl"}
AGAINST_DEFAULTS = {"alpaca": 2.0, "lamini": 1.5}
AGAINST_BEST, MEMORY = 1.15, 0.8
NUM_ROWS = 100_000


@dataclass(frozen=True)
class Measurement:
    base: str
    data: str
    quantization: str
    turns: tuple[int, ...]
    """Optimizer steps of each turn; the first is not counted."""


MEASUREMENTS = {
    f"{base}-{data}{'-nf4' if quantization == 'nf4' else ''}": Measurement(base, data, quantization, turns)
    for base, turns in {"tiny": (3, 8, 8, 8), "135m": (1, 2, 2, 2), "410m": (1, 1, 1)}.items()
    for data in FILES
    for quantization in ("none", "nf4")
}
TOKENISE = "tokenise"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*MEASUREMENTS, TOKENISE]
    parser.add_argument("--data", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="some of: " + " ".join(names))
    parser.add_argument("--quick", action="store_true", help="one counted turn, and 10,000 rows to tokenise")
    parser.add_argument("--turns", type=int, nargs="+", help="steps of each turn, the first of which is not counted")
    parser.add_argument("--threads", type=int, default=2, help="of every peer")
    parser.add_argument("--by-processor", action="store_true", help="tokens per second of processor time: for a busy machine")
    both = ["defaults", "best"]
    parser.add_argument("--peers", nargs="+", choices=both, default=both, help="settings of the peers")
    parser.add_argument("--packing-length", type=int, help="ours; by default what a recipe without it has")
    parser.add_argument("--folder", type=Path, default=ROOT / ".tunesmith" / "bench-train", help="rows and logs")
    factory = os.environ.get("LLAMAFACTORY_PYTHON")
    parser.add_argument("--llamafactory-python", type=Path, default=factory, help="its environment's [$LLAMAFACTORY_PYTHON]")
    parser.add_argument("--out", type=Path, help="JSON lines are added here [default: FOLDER/rows.jsonl]")
    return parser.parse_args()


def make_base(name: str) -> Path:
    shape = SHAPES[name]
    if shape is None:
        return TINY
    folder = ROOT / ".tunesmith" / "shaped" / shape
    if not (folder / "model.safetensors").exists():
        subprocess.run([sys.executable, "bench/make_shaped_model.py", shape, str(folder)], check=True, cwd=ROOT)
    return folder


def write_steps(path: Path, base: Path, data: Path, num_steps: int, *, is_grouped: bool) -> None:
    """Rows of `num_steps` steps: in random order, or of like length together, a fair sample of lengths in either case."""
    tokenizer = load_tokenizer(find_base(str(base)).folder)
    made = dataset.build(DataRecipe(train=str(data), bad_rows="skip"), Path("/"), tokenizer, max_length=1024, seed=0)
    chosen = random.Random(0).sample([row for row in made.train if isinstance(row, EncodedRow)], num_steps * BATCH)
    plan = [list(range(start, start + BATCH)) for start in range(0, len(chosen), BATCH)]
    if is_grouped:
        plan = order.plan([len(row.ids) for row in chosen], batch_size=BATCH, epochs=1, seed=0)
    steps = [[{"ids": chosen[row].ids, "mask": chosen[row].loss_mask} for row in step] for step in plan]
    path.write_text(json.dumps(steps))


def measure(name: str, args: argparse.Namespace) -> list[Row]:
    chosen = MEASUREMENTS[name]
    turns: Sequence[int] = args.turns or (chosen.turns[:2] if args.quick else chosen.turns)
    base, found = make_base(chosen.base), []
    for settings in args.peers:
        is_best = settings == "best"
        steps = args.folder / f"{name}-{settings}.json"
        write_steps(steps, base, args.data / FILES[chosen.data], sum(turns), is_grouped=is_best)
        option = ("--best",) if is_best else ()
        packed = ("--packing-length", str(args.packing_length)) if args.packing_length else ()
        contestants = [
            Contestant("ours", sys.executable, "bench.train.ours", packed),
            Contestant(f"TRL, {settings}", sys.executable, "bench.train.trl_peer", option),
        ]
        if args.llamafactory_python is not None:
            contestants.append(
                Contestant(f"LLaMA-Factory, {settings}", str(args.llamafactory_python), "bench.train.llamafactory_peer", option)
            )
        others = Others()
        taken = contest(
            contestants, base, steps, chosen.quantization, turns=turns, threads=args.threads, logs=args.folder
        )
        load = "rows of like length" if is_best else "rows in random order"
        rate = AGAINST_BEST if is_best else AGAINST_DEFAULTS[chosen.data]
        told = rows(name, load, contestants, taken, by_processor=args.by_processor, rate=rate, memory=MEMORY if is_best else None)
        found += told
        say(others.warning() or "the machine was quiet")
    return found


def tokenise(args: argparse.Namespace) -> list[Row]:
    """Rows of lamini_docs again and again, each numbered, so that none repeats another."""
    source = [json.loads(line) for line in (args.data / FILES["lamini"]).read_text().splitlines()]
    source = [row for row in source if row["question"].strip() and row["answer"].strip()]
    count = 10_000 if args.quick else NUM_ROWS
    path = args.folder / f"rows-{count}.jsonl"
    with open(path, "w") as file:
        for number in range(count):
            row = source[number % len(source)]
            prompt = [{"role": "user", "content": f"{number}. {row['question']}"}]
            answer = [{"role": "assistant", "content": row["answer"]}]
            file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")
    found, told = [], {}
    for who, processes in (("ours", 2), ("trl", 1), ("trl", 2)):
        out = subprocess.run(
            [sys.executable, "-m", "bench.train.tokenise", who, str(TINY), str(path), "--processes", str(processes)],
            cwd=ROOT, capture_output=True, text=True, check=True,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        )
        (line,) = [line for line in out.stdout.splitlines() if line.startswith("TURN ")]
        told[who, processes] = json.loads(line.removeprefix("TURN "))
        say(f"  {who}, {processes} processes: {told[who, processes]}")
    key, unit = ("processor_seconds", "rows per processor second") if args.by_processor else ("seconds", "rows/s")
    mine = count / told["ours", 2][key]
    for processes in (1, 2):
        theirs = count / told["trl", processes][key]
        peer = f"TRL, {processes} process{'es' if processes > 1 else ''}"
        found.append(Row(TOKENISE, f"{count:,} rows", peer, mine, theirs, unit, mine / theirs, at_least=3))
    return found


def main() -> None:
    args = arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    out = args.out or args.folder / "rows.jsonl"
    for name in args.only or [*MEASUREMENTS, TOKENISE]:
        say(name)
        found = tokenise(args) if name == TOKENISE else measure(name, args)
        report.write_json_lines(out, found)
        say(report.plain(found))


if __name__ == "__main__":
    main()
