"""Runs that meet real trouble: memory that the system does not give, and a step that never ends. Told as one JSON object.

    python tests/train/trouble.py FOLDER

Every run is a fork of this process, as in faults.py, whose worker, rows and comparison these are.
"""

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from train.faults import attempt, chats, make, outcome, output, write
from tunesmith.runfolder import RunFolder, read_events
from tunesmith.train import watchdog

MANY = {"method": {"type": "sft", "batch_size": 64}, "compute": {"packing_length": 65536}, "checkpoints": {"keep": 2}}
"""128 rows in 2 steps, each of which is one line."""
ROOM_BYTES = 32 << 20
"""What the second step may still take."""
PIECE_BYTES = 1 << 20
BALLAST: list[bytearray] = []


def with_many_rows(root: Path, changes: dict[str, Any] = MANY) -> RunFolder:
    folder = make(root, changes)
    write(root / "train.jsonl", chats(128, 1))
    return folder


def at_first_boundary(act: Any) -> Any:
    """Arms a worker so that `act(number)` is called when it asks for the number-th time what to do."""

    def arm() -> None:
        real, asked = RunFolder.check_lease, 0

        def check_lease(folder: RunFolder, number: int) -> Any:
            nonlocal asked
            asked += 1
            act(asked)
            return real(folder, number)

        RunFolder.check_lease = check_lease  # type: ignore[method-assign]

    return arm


def limit_memory(asked: int) -> None:
    """Takes all that the process could still get or has in reserve, then gives back ROOM_BYTES."""
    if asked != 3:  # after the first step: threads have begun by then
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(MemoryError):
        while True:
            BALLAST.append(bytearray(PIECE_BYTES))
    del BALLAST[-(ROOM_BYTES // PIECE_BYTES) :]


def hang(asked: int) -> None:
    """Not at a boundary, which may take its time, but within the step that follows it."""
    watchdog.LEAST_SECONDS, watchdog.FIRST_SECONDS = 1.0, 600.0
    if asked == 6:
        from tunesmith.train import trainer

        trainer.micro_batches = lambda *args: time.sleep(600)


def events(folder: RunFolder, number: int, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder.events_file(number)).events if event["type"] == kind]


def short_of_memory(root: Path) -> dict[str, Any]:
    whole, short = with_many_rows(root / "whole"), with_many_rows(root / "short")
    assert attempt(whole, 1, lambda: None) == 0, output(whole)
    assert attempt(short, 1, at_first_boundary(limit_memory)) == 0, output(short)
    state = json.loads((sorted((short.root / "checkpoints").iterdir())[-1] / "state.json").read_text())
    told = {"warnings": [event["message"] for event in events(short, 1, "warning")], "shrink": state["shrink"]}
    return told | {"losses": [[event["loss"] for event in events(folder, 1, "step")] for folder in (whole, short)]}


def hung(root: Path) -> dict[str, Any]:
    changes = {"method": {"type": "sft", "epochs": 4}}
    straight, folder = make(root / "straight", changes), make(root / "hung", changes)
    assert attempt(straight, 1, lambda: None) == 0, output(straight)
    status = attempt(folder, 1, at_first_boundary(hang))
    printed = (folder.root / "output-1.log").read_text()
    assert attempt(folder, 2, lambda: None) == 0, output(folder)
    resumed = events(folder, 2, "resumed")
    return {"status": status, "printed": printed[-3000:], "resumed": resumed, "equal": outcome(folder) == outcome(straight)}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    print(json.dumps({each.__name__: each(root) for each in (short_of_memory, hung)}))
