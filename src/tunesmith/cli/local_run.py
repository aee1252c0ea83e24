"""Runs a recipe here, without a server or a database: lays out a run folder, starts workers on it, follows their events.

A worker that dies is started again and goes on from its newest checkpoint. Shared by `tunesmith train` and `tunesmith.train`.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.cli import datasets
from tunesmith.errors import Interrupted, InvalidRequest, TrainingFailed
from tunesmith.jobs import child
from tunesmith.paths import DataDir
from tunesmith.recipes.run import Recipe, load, parse
from tunesmith.runfolder import Event, RunFolder, read_events
from tunesmith.store import storage_error

MAX_ATTEMPTS = 3
"""Workers that may die without an `error` event before the run is given up; each goes on where the last one stopped."""
POLL_SECONDS = 0.1
LAST_WORDS = frozenset({"error", "paused", "cancelled", "result"})

OnEvent = Callable[[Event], None]


def train(recipe: "Recipe | dict[str, Any] | str | Path", folder: str | Path | None = None) -> dict[str, Any]:
    """The face's `tunesmith.train`: a whole run, without a word."""
    if isinstance(recipe, dict):
        recipe = parse(recipe)
    elif not isinstance(recipe, Recipe):
        recipe = load(Path(recipe))
    laid_out = lay_out(recipe, Path(folder).absolute() if folder is not None else new_folder(recipe))
    result = run(laid_out, lambda event: None)
    if result is None:
        raise TrainingFailed("The run was paused.", hint=f"Go on with `tunesmith train --resume {laid_out.root}`.", code="paused")
    return result


def new_folder(recipe: Recipe) -> Path:
    """A name that sorts by time, under the data directory's runs."""
    name = "".join(c if c.isalnum() else "-" for c in recipe.name.lower()) or recipe.method.type
    return DataDir.default().runs / f"local-{time.strftime('%Y%m%d-%H%M%S')}-{name}-{os.getpid()}"


def lay_out(recipe: Recipe, root: Path, *, quiet: bool = True) -> RunFolder:
    """A run folder that needs nothing outside it but the base: the data is brought here. Raises NotFound, InvalidRequest."""
    if (root / "recipe.json").exists():
        raise InvalidRequest(
            f"{root} already holds a run.", hint=f"Go on with `tunesmith train --resume {root}`, or name another folder."
        )
    data = datasets.located(recipe.data, DataDir.default(), quiet=quiet)
    names = {"train": _name("train", data.train)}
    if data.validation is not None:
        names["validation"] = _name("validation", data.validation)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for field, name in names.items():
        _copy(Path(getattr(data, field)), root / name)
    base = Path(recipe.base)
    local = str(base.absolute()) if (base / "config.json").is_file() else recipe.base
    return RunFolder(root).create(recipe.model_copy(update={"data": data.model_copy(update=names), "base": local}))


def _name(field: str, path: str) -> str:
    return field if Path(path).is_dir() else f"{field}{Path(path).suffix.lower() or '.jsonl'}"


def _copy(source: Path, target: Path) -> None:
    """A file, or a folder of files."""
    try:
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True) if target.is_dir() else target.unlink(missing_ok=True)
        raise storage_error(error, target) from error


def existing(root: Path) -> RunFolder:
    """The run folder at `root`. Raises InvalidRecipe if it is none, InvalidRequest if the run is finished."""
    folder = RunFolder(root)
    folder.recipe()
    if folder.result() is not None:
        raise InvalidRequest(f"The run in {root} is finished.", hint=f"Its adapter is {root / 'artifacts' / 'adapter'}.")
    return folder


def run(
    folder: RunFolder, on_event: OnEvent, *, models_dir: Path | None = None, is_ending: Callable[[], bool] = lambda: False
) -> dict[str, Any] | None:
    """The result, or None when the run was paused or cancelled. Raises TrainingFailed with the worker's reason.

    KeyboardInterrupt pauses the run: a checkpoint is written, then None is returned. A second one stops at once.
    Interrupted is raised, with the state saved, when the machine is taken away, or when `is_ending` says that this process is.
    """
    models = models_dir or DataDir.default().models
    reason = ""
    for remaining in reversed(range(MAX_ATTEMPTS)):
        number = max(folder.attempts(), default=0) + 1
        last, returncode = _attempt(folder, number, models, on_event, is_ending)
        if last is not None and last["type"] == "error":
            raise TrainingFailed(str(last["message"]), code=str(last["code"]), param=last.get("param"))
        result = folder.result()
        if result is not None:
            return result
        if child.was_interrupted(returncode):
            raise Interrupted("The run was interrupted; what it did is saved.", hint=f"Go on with: {resume_command(folder)}")
        if last is not None:
            return None
        reason = child.describe(returncode, folder.attempt(number) / "worker.log")
        if remaining:
            on_event({"type": "warning", "message": f"The worker ended ({reason}); another one goes on."})
    raise TrainingFailed(
        f"{MAX_ATTEMPTS} workers ended without a reason; the last one: {reason}.",
        hint=f"See {folder.root / 'attempts'}/*/worker.log, then `tunesmith train --resume {folder.root}`.",
    )


def resume_command(folder: RunFolder) -> str:
    return f"tunesmith train --resume {folder.root}"


def _attempt(
    folder: RunFolder, number: int, models_dir: Path, on_event: OnEvent, is_ending: Callable[[], bool]
) -> tuple[Event | None, int]:
    """One worker from start to end: the event that says how it ended, if any, and its exit status."""
    log = folder.attempt(number) / "worker.log"
    folder.order("run", number)
    process = child.start_worker(folder.root, number, models_dir, log)
    events = _Events(folder, number, on_event)
    try:
        try:
            _watch(process, events, is_ending)
        except KeyboardInterrupt:
            folder.order("pause", number)
            on_event({"type": "phase", "phase": "pausing", "message": "Writing a checkpoint; press Ctrl-C again to stop at once"})
            _watch(process, events, is_ending)
    finally:
        child.end(process)
    return events.last, process.returncode


class _Events:
    """Reads one attempt's events as they come."""

    def __init__(self, folder: RunFolder, number: int, on_event: OnEvent):
        self._path, self._on_event = folder.events_file(number), on_event
        self._offset = 0
        self.last: Event | None = None

    def read(self) -> None:
        found = read_events(self._path, self._offset)
        self._offset = found.offset
        for event in found.events:
            self.last = event if event["type"] in LAST_WORDS else self.last
            self._on_event(event)


def _watch(process: "subprocess.Popen[bytes]", events: _Events, is_ending: Callable[[], bool]) -> None:
    was_told = False
    while True:
        if is_ending() and not was_told:
            process.terminate()  # it saves its work first
            was_told = True
        ended = process.poll() is not None
        events.read()
        if ended:
            return
        time.sleep(POLL_SECONDS)
