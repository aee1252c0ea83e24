"""Copies checkpoints to S3-compatible storage as they are made, and gives a folder that has none the newest whole one from there.

    s3://bucket/prefix/NAME OF THE RUN'S FOLDER/step-40/adapter.safetensors, ..., manifest.json last

A thread uploads while the run goes on; a checkpoint that waits while a newer one comes is left out. Storage that fails becomes a
warning. There is no rename in such storage, so a checkpoint there is one only when its manifest is, and its
files are what that says.
"""

import json
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.errors import Busy, CheckpointInvalid
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.store import Folder, open_folder
from tunesmith.train import checkpoints
from tunesmith.train.checkpoints import MANIFEST

Warn = Callable[[str], object]


CLOSE_SECONDS = 600.0
"""For the last upload; whoever takes the machine away waits no longer than he likes."""


@contextmanager
def synced(recipe: Recipe, folder: RunFolder, warn: Warn) -> Iterator[Callable[[Path], None]]:
    """What is to be called with each checkpoint's folder. Before that, a run without checkpoints gets the storage's newest.

    Raises TunesmithError where the storage's client is not installed.
    """
    if recipe.checkpoints.sync is None:
        yield lambda path: None
        return
    there = open_folder(f"{recipe.checkpoints.sync.rstrip('/')}/{folder.root.name}")
    if not checkpoints.folders(folder.checkpoints):
        fetch_newest(there, folder.checkpoints, warn)
    sync = Sync(there, folder.checkpoints, keep=recipe.checkpoints.keep, warn=warn)
    try:
        yield sync.offer
    finally:
        sync.close(CLOSE_SECONDS)


class Sync:
    """`offer` each checkpoint when it is durable; `close` waits for the last upload. `warn` is called in the caller's thread."""

    def __init__(self, there: Folder, here: Path, *, keep: int, warn: Warn):
        self._there, self._here, self._keep, self._warn = there, here, keep, warn
        self._waiting: Path | None = None
        self._failures: deque[str] = deque()
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="checkpoint-sync", daemon=True)
        self._thread.start()

    def offer(self, folder: Path) -> None:
        """Takes hard links, so that the checkpoint may be deleted before it is uploaded."""
        linked = self._here / f".{folder.name}.sync"
        shutil.rmtree(linked, ignore_errors=True)
        shutil.copytree(folder, linked, copy_function=os.link)
        with self._changed:
            left_out, self._waiting = self._waiting, linked
            self._changed.notify()
        if left_out is not None:
            shutil.rmtree(left_out, ignore_errors=True)
        self._tell()

    def close(self, seconds: float) -> None:
        """Waits for what is under way, at most `seconds`."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(seconds)
        self._tell()
        if self._thread.is_alive():
            self._warn(f"The newest checkpoint is not in the storage: it was not there after {seconds:.0f} seconds.")

    def _tell(self) -> None:
        while self._failures:
            self._warn(f"A checkpoint was not copied: {self._failures.popleft()}")

    def _work(self) -> None:
        while (linked := self._next()) is not None:
            try:
                upload(self._there, linked, linked.name.removeprefix(".").removesuffix(".sync"))
                prune(self._there, self._keep)
            except Busy as error:
                self._failures.append(str(error))
            shutil.rmtree(linked, ignore_errors=True)

    def _next(self) -> Path | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._is_closing)
            linked, self._waiting = self._waiting, None
            return linked


def upload(there: Folder, folder: Path, name: str) -> None:
    """The files of one checkpoint, its manifest last. Raises Busy."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
        there.upload(path, f"{name}/{path.name}")


def prune(there: Folder, keep: int) -> None:
    """Deletes all but the newest `keep`, each one's manifest first. Raises Busy.

    Later ones than the run has come to are left: its steps are the same however often it makes them.
    """
    names = there.names()
    for step in _steps(names)[:-keep]:
        for name in sorted((name for name in names if name.startswith(f"step-{step}/")), key=lambda name: not _is_manifest(name)):
            there.delete(name)


def fetch_newest(there: Folder, here: Path, warn: Warn) -> None:
    """Puts the newest checkpoint that is whole into `here`; each newer one that is not is skipped, and `warn` is told why."""
    try:
        names = there.names()
        for step in reversed(_steps(names)):
            try:
                return _fetch(there, here, f"step-{step}", frozenset(names))
            except CheckpointInvalid as error:
                warn(f"A checkpoint in the storage was skipped: {error.message}")
    except Busy as error:
        warn(f"No checkpoint was fetched: {error}")


def _fetch(there: Folder, here: Path, name: str, names: frozenset[str]) -> None:
    """Raises CheckpointInvalid, and Busy."""
    part = here / f".{name}.fetched" / name
    shutil.rmtree(part.parent, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    try:
        there.download(f"{name}/{MANIFEST}", part / MANIFEST)
        for file in _files(part / MANIFEST):
            if f"{name}/{file}" not in names:
                raise CheckpointInvalid(f"{name} lacks {file}.")
            there.download(f"{name}/{file}", part / file)
        checkpoints.read(part)
        os.replace(part, here / name)
    finally:
        shutil.rmtree(part.parent, ignore_errors=True)


def _files(manifest: Path) -> list[str]:
    try:
        names = list(dict(json.loads(manifest.read_bytes())["sha256"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{manifest.parent.name} has a manifest that cannot be read.") from error
    if any(Path(name).name != name for name in names):
        raise CheckpointInvalid(f"{manifest.parent.name} names a file outside its folder.")
    return names


def _steps(names: list[str]) -> list[int]:
    """Steps whose manifest is there, in order."""
    found = (checkpoints.step_of(Path(name).parent) for name in names if _is_manifest(name))
    return sorted(step for step in found if step is not None)


def _is_manifest(name: str) -> bool:
    return name.count("/") == 1 and name.endswith(f"/{MANIFEST}")
