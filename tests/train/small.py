"""Small runs for the tests of training: a recipe on a few rows, in a folder of its own, in this process or by a worker."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.paths import SUPPORT_DESK
from tunesmith.recipes.run import merge, parse
from tunesmith.runfolder import RunFolder
from tunesmith.train.tools import Tools

SMALL: dict[str, Any] = {
    "method": {"epochs": 2, "batch_size": 4, "learning_rate": 0.003},
    "adapter": {"rank": 4, "alpha": 8, "dropout": 0.1},
    "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
    "checkpoints": {"every_steps": 2, "keep": 2},
    "evaluation": {"verify": False},
    "threads": 1,
}
"""12 rows, 6 steps, a checkpoint at 2, 4 and 6. Dropout is on, so that the random states matter."""


def make_folder(root: Path, **changes: Any) -> RunFolder:
    folder = RunFolder(root).create(parse(merge(SMALL, changes)))
    for name, source, count in (("train", "train", 12), ("validation", "heldout", 4)):
        rows = (SUPPORT_DESK / f"{source}.jsonl").read_text().splitlines(keepends=True)[:count]
        (root / f"{name}.jsonl").write_text("".join(rows))
    folder.order("run", 1)
    return folder


@dataclass
class Recorder:
    """Tools of a run in this process: records the events, and stops when `stop_after` steps are done."""

    stop_after: int | None = None
    wanted: str = "pause"
    events: list[dict[str, Any]] = field(default_factory=list)

    def emit(self, type: str, **fields: Any) -> None:
        self.events.append({"type": type, **json.loads(json.dumps(fields))})

    def of(self, type: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type]

    def tools(self) -> Tools:
        return Tools(self.emit, self._should_stop, None)

    def _should_stop(self) -> Any:
        done = len(self.of("step")) + 1  # asked before the step is told
        return self.wanted if self.stop_after is not None and done >= self.stop_after else None

