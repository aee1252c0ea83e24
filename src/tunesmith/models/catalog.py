"""Which bases there are, and what the files say about each: shape, size, revision. Reads no weights, imports no torch.

A base is named by its id: `tunesmith/tiny` (built in), a name on the shelf (`shelf.py`), or the path of a local folder.
"""

import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.models.shelf import (
    BUILT_IN,
    TOKENIZERS,
    check_folder,
    files_of,
    folder_of,
    read_json,
    read_source,
    weight_names,
)
from tunesmith.paths import TINY

MAX_HEADER_BYTES = 100_000_000
"""Longest header of a safetensors file, as the format has it."""


@dataclass(frozen=True)
class Base:
    """A base model on this machine."""

    id: str
    """The name that recipes and requests use."""
    folder: Path
    """Where its config.json, weights and tokenizer lie."""
    hidden_size: int
    """Width of the residual stream."""
    max_positions: int
    """Most tokens of prompt and completion together."""
    num_parameters: int | None
    """Numbers in the weight files (tied weights once); None if a header cannot be read."""

    @property
    def revision(self) -> str:
        """sha256 over config.json, tokenizer and weights: the same only for a base that computes the same. 64 hex digits."""
        whole = hashlib.sha256()
        for path in _files(self.folder):
            stat = path.stat()
            whole.update(f"{path.name} {_sha256(path, stat.st_size, stat.st_mtime_ns)}\n".encode())
        return whole.hexdigest()


def find_base(name: str, models_dir: Path | None = None) -> Base:
    """The base named `name`. Raises NotFound with what there is, InvalidRequest for a folder that is no base."""
    folder = _folder(name, models_dir)
    if folder is None:
        known = ", ".join(base.id for base in list_bases(models_dir)) or "none yet"
        hint = f"There are: {known}; or name a local folder, or `tunesmith models pull ORG/NAME`."
        raise NotFound(f"There is no base model {name!r}.", hint=hint, param="model", code="model_not_found")
    return _read(name, folder)


def list_bases(models_dir: Path | None = None) -> list[Base]:
    """The built-in base and those on the shelf, by id; folders that are no usable base are left out."""
    found = [(BUILT_IN, TINY)]
    for folder in sorted(models_dir.iterdir()) if models_dir is not None and models_dir.is_dir() else []:
        source = None if folder.name.startswith(".") else read_source(folder)
        if source is not None:
            found.append((source.id, files_of(folder)))
    bases = []
    for name, folder in found:
        try:
            bases.append(_read(name, folder))
        except (InvalidRequest, NotFound):
            continue
    return bases


def _folder(name: str, models_dir: Path | None) -> Path | None:
    if name == BUILT_IN:
        return TINY
    path = Path(name).expanduser()
    if name.startswith(("/", "./", "../", "~")):
        return path.absolute() if path.is_dir() else None
    if models_dir is not None and name not in {"", ".", ".."}:
        shelf = folder_of(name, models_dir)
        if read_source(shelf) is not None:
            return files_of(shelf)
    return path.absolute() if name and (path / "config.json").is_file() else None


def _read(name: str, folder: Path) -> Base:
    """Raises InvalidRequest for a folder without config, safetensors or tokenizer, or with code of its own."""
    check_folder(folder)
    config = read_json(folder / "config.json")
    text = config.get("text_config", config)
    return Base(
        id=name,
        folder=folder,
        hidden_size=_number(text, folder, "hidden_size", "n_embd", "d_model"),
        max_positions=_number(text, folder, "max_position_embeddings", "n_positions", "max_seq_len"),
        num_parameters=_num_parameters(folder),
    )


def _number(config: dict[str, Any], folder: Path, *names: str) -> int:
    """The first of `names` that the configuration has: families name the same thing differently."""
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise InvalidRequest(f"{folder}/config.json tells no {names[0]}.", hint="Is it a causal language model?")


def _files(folder: Path) -> list[Path]:
    names = {"config.json", *TOKENIZERS, *weight_names(folder)}
    return [folder / name for name in sorted(names) if (folder / name).is_file()]


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, num_bytes: int, mtime_ns: int) -> str:
    """Hash of a file; size and time of change are part of the key, so that a changed file is read again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _num_parameters(folder: Path) -> int | None:
    total = 0
    for name in weight_names(folder):
        try:
            header = read_header(folder / name)
        except (OSError, ValueError):
            return None
        for tensor in header.values():
            size = 1
            for length in tensor["shape"]:
                size *= length
            total += size
    return total


def read_header(path: Path) -> dict[str, Any]:
    """Tensor name -> {"dtype", "shape", "data_offsets"} of a safetensors file. Raises ValueError if it is none."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{path.name} has no safetensors header")
    header.pop("__metadata__", None)
    return header
