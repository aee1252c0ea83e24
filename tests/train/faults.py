"""Kills a run at each of its durable actions in turn, resumes it, and compares with the run that nobody killed, as SQLite does.

    python tests/train/faults.py FOLDER 'JSON of changes to RECIPE' [--every N] [--after K]

Every run is a fork of this process, which has imported all and computed nothing. The k-th call of what makes something durable
(ACTIONS) kills it before it happens, for k = 1, 2, ... until a run gets through; `--every` takes each N-th. After each kill one
more fork goes on, and must end with the same result, the same files bit for bit, and the same loss at each step.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}

from train.preferences import judged, pairs, write
from tunesmith import worker
from tunesmith.data.skills import BANDS, generate
from tunesmith.recipes.run import merge, parse
from tunesmith.runfolder import EventLog, RunFolder, read_events
from tunesmith.train import methods  # noqa: F401  imported before the forks
from tunesmith.train.interruption import Interruption

RECIPE: dict[str, Any] = {
    "method": {"epochs": 1, "batch_size": 4, "learning_rate": 0.003},
    "adapter": {},
    "data": {"train": "train.jsonl", "validation": "held.jsonl"},
    "checkpoints": {"every_steps": 1, "keep": 1, "adapters": 1},
    "evaluation": {"every_steps": 2, "verify": False},
    "threads": 1,
}
"""8 rows, 2 steps, a checkpoint after each, an adapter at the end."""
ACTIONS = {os: ("fsync", "replace", "rename", "link", "mkdir", "unlink", "truncate"), shutil: ("rmtree",)}
FORBIDDEN = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"}
SUFFIXES = {".json", ".jsonl", ".safetensors", ".log", ".jinja", ".txt"}


def make(root: Path, changes: dict[str, Any]) -> RunFolder:
    recipe = parse(merge(RECIPE, changes))
    folder = RunFolder(root).create(recipe)
    rows = {"sft": chats, "kto": judged}.get(recipe.method.type, pairs)
    write(root / "train.jsonl", rows(8, 1))
    write(root / "held.jsonl", rows(4, 2))
    return folder


def chats(count: int, seed: int) -> list[dict[str, Any]]:
    items = generate(BANDS["reward"][0], count, seed)
    return [{"messages": [*item.messages, item.answer]} for item in items]


def attempt(folder: RunFolder, number: int, before: Callable[[], None]) -> int:
    """The worker's exit status in a fork of this process, where `before` is called first."""
    folder.order("run", number)
    child = os.fork()
    if child == 0:
        output = os.open(folder.root / f"output-{number}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            before()
            os._exit(worker.attempt(folder, number, None, EventLog(folder.events_file(number)), Interruption({})))
        except BaseException as error:  # noqa: BLE001  the fork ends here, whatever it dies of
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killing_at(count: int) -> Callable[[], None]:
    """Makes the `count`-th durable action of this process its end."""

    def arm() -> None:
        left = count

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        for module, names in ACTIONS.items():
            for name in names:
                setattr(module, name, counted(getattr(module, name)))

    return arm


def outcome(folder: RunFolder) -> dict[str, Any]:
    """All that must not depend on kills: the result, what was made, the last checkpoint, and each step's loss."""
    losses: dict[int, float] = {}
    for number in folder.attempts():
        for event in read_events(folder.events_file(number)).events:
            if event["type"] == "resumed":
                losses = {step: loss for step, loss in losses.items() if step <= event["step"]}
            elif event["type"] == "step":
                losses[event["step"]] = event["loss"]
    kept = [path for part in ("artifacts", "checkpoints") for path in (folder.root / part).rglob("*") if path.is_file()]
    names = {path.name for path in folder.root.rglob("*")}
    odd = {path.name for path in kept if path.suffix not in SUFFIXES} | names & FORBIDDEN
    assert not odd, f"files that nobody of us writes: {odd}"
    files = {str(path.relative_to(folder.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
    result = {name: value for name, value in (folder.result() or {}).items() if name != "plan"}  # it has seconds
    return {"result": result, "losses": losses, "files": files}


def output(folder: RunFolder) -> str:
    printed = [path.read_text()[-3000:] for path in sorted(folder.root.glob("output-*.log"))]
    said = [event for number in folder.attempts() for event in read_events(folder.events_file(number)).events[-3:]]
    return "\n".join([*printed, *map(str, said)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("changes", type=json.loads)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--after", type=int, default=0, help="begin behind this action")
    args = parser.parse_args()
    began = time.monotonic()
    straight = make(args.root / "straight", args.changes)
    assert attempt(straight, 1, lambda: None) == 0, output(straight)
    wanted = outcome(straight)
    count, kills = args.after, 0
    while True:
        count += args.every
        folder = make(args.root / "killed", args.changes)
        status = attempt(folder, 1, killing_at(count))
        if status == -signal.SIGKILL:
            status = attempt(folder, 2, lambda: None)
            kills += 1
        else:
            count = 0
        assert status == 0, f"after a kill at action {count}: {output(folder)}"
        found = outcome(folder)
        for part, value in wanted.items():
            assert found[part] == value, f"{part} differs after a kill at action {count}:\n{found[part]}\n{value}"
        shutil.rmtree(folder.root)
        if count == 0:
            break
    print(json.dumps({"kills": kills, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
