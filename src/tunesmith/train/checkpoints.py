"""Checkpoints by manifest: a kill or a full disk at any moment leaves the older ones whole, and a torn one is recognised.

    checkpoints/step-40/adapter.safetensors     what trains
                        optimizer.safetensors   its moments
                        rng.safetensors         states of the random generators that are tensors
                        state.json              step, data position, the other random states, what the run measured so far
                        manifest.json           sha256 of each file; written last

A checkpoint is written as a hidden folder, each file fsynced, then renamed. Safetensors and JSON only: nothing here can run code.
Knows no models: tensors by name in, the same out.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tunesmith.errors import CheckpointInvalid
from tunesmith.store import fsync_folder, storage_error

Tensors = dict[str, torch.Tensor]
MANIFEST = "manifest.json"
STATE = "state.json"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on after `step`."""

    step: int
    tensors: dict[str, Tensors]
    """File name without ending -> tensors."""
    state: dict[str, Any]


def write(root: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Makes the checkpoint durable as `root/step-N`, then deletes all but the newest `keep`. Raises StorageFull.

    Later steps than N, left from before a resume, are deleted too: the run has not reached them yet.
    """
    final = root / f"step-{checkpoint.step}"
    part = root / f".step-{checkpoint.step}.part"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(mode=0o700)
        _fill(part, checkpoint)
        if final.exists():
            shutil.rmtree(final)
        os.replace(part, final)
        fsync_folder(root)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise storage_error(error, final) from error
    prune(root, checkpoint.step, keep)
    return final


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    files = {f"{name}.safetensors": save(tensors) for name, tensors in checkpoint.tensors.items()}
    files[STATE] = json.dumps(checkpoint.state).encode()
    for name, data in files.items():
        _write_durably(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = {"format": FORMAT, "step": checkpoint.step, "sha256": hashes}
    _write_durably(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    fsync_folder(folder)


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. Raises CheckpointInvalid, saying why, unless it is whole and unaltered."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {name: _checked(folder, name, sha256) for name, sha256 in dict(manifest["sha256"]).items()}
        if manifest["format"] != FORMAT or manifest["step"] != step_of(folder):
            raise CheckpointInvalid(f"{folder.name} was written by another version, or was renamed.")
        tensors = {
            name.removesuffix(".safetensors"): load(data) for name, data in files.items() if name.endswith(".safetensors")
        }
        return Checkpoint(manifest["step"], tensors, json.loads(files[STATE]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointInvalid(f"{folder.name} is torn: {type(error).__name__}: {error}.") from error


def _checked(folder: Path, name: str, sha256: str) -> bytes:
    if Path(name).name != name:
        raise CheckpointInvalid(f"{folder.name} names a file outside its folder.")
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointInvalid(f"{folder.name} was altered: {name} is not what its manifest says.")
    return data


def newest(root: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; each newer one that is not is skipped, and `warn` is told why."""
    for folder in reversed(folders(root)):
        try:
            return read(folder)
        except CheckpointInvalid as error:
            warn(f"A checkpoint was skipped: {error.message}")
    return None


def clear(root: Path) -> None:
    """Removes what a kill left half done: hidden folders that nobody will make whole."""
    for path in root.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def folders(root: Path) -> list[Path]:
    """The folders named step-N, oldest first."""
    found = [path for path in root.iterdir() if step_of(path) is not None] if root.is_dir() else []
    return sorted(found, key=lambda path: step_of(path) or 0)


def step_of(folder: Path) -> int | None:
    match = re.fullmatch(r"step-(\d+)", folder.name)
    return int(match.group(1)) if match else None


def prune(root: Path, step: int, keep: int) -> None:
    """Deletes all but the newest `keep` up to `step`, and those after it, which the run has not reached."""
    known = folders(root)
    old = [folder for folder in known if (step_of(folder) or 0) <= step][:-keep]
    later = [folder for folder in known if (step_of(folder) or 0) > step]
    for folder in old + later:
        shutil.rmtree(folder, ignore_errors=True)
    for part in root.glob(".step-*.part"):
        shutil.rmtree(part, ignore_errors=True)
