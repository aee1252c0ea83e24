"""The run folder, where desk and workshop meet: who writes which file, and how. Knows neither SQL nor torch.

    recipe.json             desk -> workshop   the recipe, with data paths relative to the folder; `kind` says of what job
    control.json            desk -> workshop   {"wanted": run|pause|cancel, "attempt": N}; replaced by rename
    attempts/N/events.jsonl workshop -> desk   one event a line: {"seq", "time", "type", ...}; append-only
    checkpoints/step-N/     see train/checkpoints.py
    artifacts/              the adapter that the run made
    result.json             final metrics, chosen checkpoint, content hash; its presence means success
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from tunesmith.errors import Fenced, InvalidRecipe
from tunesmith.recipes.method import Part
from tunesmith.recipes.run import Recipe, parse_as
from tunesmith.store import storage_error, write_atomically
from tunesmith.types import Wanted

P = TypeVar("P", bound=Part)

INTERRUPTED = 33
"""Exit status of a worker whose machine is taken away, or that was told to end: what it did is saved, start it again."""

Event = dict[str, Any]
"""{"seq": from 1, "time": seconds since 1970, "type": phase|step|eval|checkpoint|warning|error|result, ...}"""


class Control(NamedTuple):
    wanted: Wanted
    attempt: int


@dataclass(frozen=True)
class JobTools:
    """What the worker of a batch or an eval run may ask of the world around it; it asks the desk like any client."""

    emit: Callable[..., Any]
    """`emit(type, **fields)` appends one event of the run."""
    should_stop: Callable[[], Literal["pause", "cancel"] | None]
    """Asked between two requests; pause means: leave, another attempt goes on. Raises Fenced when another holds the lease."""
    base_url: str
    """The desk's own address, such as http://127.0.0.1:8040/v1."""
    api_key: str
    """Good as long as this attempt; of the job's project."""


class RunFolder:
    """One job's folder."""

    def __init__(self, root: Path):
        self.root = root

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def attempt(self, number: int) -> Path:
        return self.root / "attempts" / str(number)

    def events_file(self, attempt: int) -> Path:
        return self.attempt(attempt) / "events.jsonl"

    def attempts(self) -> list[int]:
        """Numbers of the attempts that have begun, oldest first."""
        folder = self.root / "attempts"
        return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []

    # -- desk -> workshop ---------------------------------------------------------------------------------------------

    def create(self, recipe: Part) -> "RunFolder":
        """The folder with the recipe of a job of any kind."""
        return self.create_as(recipe.model_dump(mode="json"))

    def create_as(self, recipe: dict[str, Any]) -> "RunFolder":
        """The same from a recipe as JSON, as a job's row holds it."""
        for folder in (self.root, self.checkpoints, self.artifacts, self.root / "attempts"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.root / "recipe.json", json.dumps(recipe, indent=1).encode())
        return self

    def recipe(self) -> Recipe:
        """The recipe of a fine-tuning job. Raises InvalidRecipe if the folder has none that can be read."""
        return self.recipe_as(Recipe)

    def recipe_as(self, shape: type[P]) -> P:
        """The recipe of another kind of job. Raises InvalidRecipe."""
        return parse_as(shape, self._recipe())

    def kind(self) -> str:
        """What job the recipe is for; fine-tuning's own says nothing. Raises InvalidRecipe."""
        return str(self._recipe().get("kind", "fine_tuning"))

    def _recipe(self) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads((self.root / "recipe.json").read_text())
            return value
        except (OSError, json.JSONDecodeError) as error:
            raise InvalidRecipe(f"{self.root} is not a run folder: {error}.", hint="A run folder holds a recipe.json.") from error

    def data_path(self, name: str) -> Path:
        """A recipe's data path: absolute as it is, else relative to the folder."""
        return self.root / name

    def order(self, wanted: Wanted, attempt: int) -> None:
        """Names the attempt that holds the lease, and what it shall do."""
        write_atomically(self.root / "control.json", json.dumps({"wanted": wanted, "attempt": attempt}).encode())

    def control(self) -> Control:
        value = json.loads((self.root / "control.json").read_text())
        return Control(value["wanted"], value["attempt"])

    def check_lease(self, attempt: int) -> Wanted:
        """What `attempt` shall do. Raises Fenced when another attempt holds the lease."""
        control = self.control()
        if control.attempt != attempt:
            raise Fenced(f"Attempt {control.attempt} holds the lease, not attempt {attempt}.")
        return control.wanted

    # -- workshop -> desk ---------------------------------------------------------------------------------------------

    def finish(self, result: dict[str, Any]) -> None:
        write_atomically(self.root / "result.json", json.dumps(result, indent=1).encode())

    def result(self) -> dict[str, Any] | None:
        path = self.root / "result.json"
        return json.loads(path.read_text()) if path.exists() else None


class EventLog:
    """The writer's end of one attempt's events.jsonl. A torn last line, left by a kill, is cut when the file is opened."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._file = open(path, "ab")  # noqa: SIM115  (lives as long as the attempt)
        self._seq = 0
        good = 0
        for event, end in _whole_lines(path, 0):
            self._seq, good = event["seq"], end
        self._file.truncate(good)

    def emit(self, type: str, **fields: Any) -> Event:
        """Appends one event and hands it to the kernel. Raises StorageFull when the disk is full."""
        event = {"seq": self._seq + 1, "time": time.time(), "type": type, **fields}
        start = self._file.tell()
        try:
            self._file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            os.truncate(self._path, start)
            raise storage_error(error, self._path) from error
        self._seq += 1
        return event

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class ReadEvents(NamedTuple):
    events: list[Event]
    offset: int


def read_events(path: Path, offset: int = 0) -> ReadEvents:
    """Whole events from byte `offset` on, and where to go on reading; a torn last line is left for the next call."""
    if not path.exists():
        return ReadEvents([], offset)
    found = list(_whole_lines(path, offset))
    return ReadEvents([event for event, _ in found], found[-1][1] if found else offset)


def _whole_lines(path: Path, offset: int) -> Iterator[tuple[Event, int]]:
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line), offset
            except json.JSONDecodeError:
                return
