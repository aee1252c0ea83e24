"""The shelf of bases, `DataDir.models`: pulled from a hub, copied, or only pointed to. Knows neither torch nor the network.

    models/<folder>/source.json    where the base came from (`Source`); the folder of `org/name` is `org--name`
    models/<folder>/config.json    and the other files of the model, unless source.json points to the user's own folder
    models/.<folder>.<...>.part    a pull that is not finished (`hub.py`); nobody reads a base from it
"""

import json
import os
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.paths import inside
from tunesmith.store import fsync_folder, storage_error, write_atomically

BUILT_IN = "tunesmith/tiny"
SOURCE = "source.json"
PICKLE = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Suffixes of weights that run code when they are read."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
"""One of these is a tokenizer."""
INDEX = "model.safetensors.index.json"
NO_PICKLE = "Convert the weights to safetensors, or take a repository that has them: reading pickle runs foreign code."


@dataclass(frozen=True)
class Source:
    """Where a base came from, as it stands in its `source.json`."""

    id: str
    """The name that recipes use: `org/name` from a hub, a plain name otherwise."""
    kind: Literal["hub", "copy", "link"]
    """Files of ours from a hub, files of ours copied from `path`, or the user's own files at `path`."""
    path: str | None = None
    """Folder that a copy was made from, or that a link points to; absolute."""
    endpoint: str | None = None
    """Address of the hub."""
    revision: str | None = None
    """Commit on the hub; 40 hexadecimal digits."""
    added_at: int = 0
    """Seconds since 1970."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file of a hub's base, as pulled."""


def folder_name(base_id: str) -> str:
    """The name of a base's folder: `org/name` becomes `org--name`."""
    return base_id.replace("/", "--")


def folder_of(base_id: str, models_dir: Path) -> Path:
    """A base's own folder under `models_dir`. Raises InvalidRequest for a name that would lead out of it."""
    return inside(models_dir, folder_name(base_id))


def read_source(folder: Path) -> Source | None:
    """The folder's source.json; None where there is none, or one that is not ours."""
    try:
        value = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        return Source(**value)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
        return None


def write_source(folder: Path, source: Source) -> None:
    write_atomically(folder / SOURCE, json.dumps(asdict(source), indent=1).encode())


def files_of(folder: Path) -> Path:
    """Where the files of the base in `folder` lie: there, or where its source.json points."""
    source = read_source(folder)
    return Path(source.path) if source is not None and source.kind == "link" and source.path else folder


# -- what a base must have ----------------------------------------------------------------------------------------------


def refuse_unfit_names(names: set[str], place: str) -> None:
    """Raises InvalidRequest unless the file names are those of a base: config, safetensors, tokenizer."""
    if "model.safetensors" not in names and INDEX not in names:
        pickled = sorted(name for name in names if Path(name).suffix in PICKLE)
        if pickled:
            raise InvalidRequest(f"{place} holds only pickle weights ({pickled[0]}).", hint=NO_PICKLE, code="pickle_only")
        raise InvalidRequest(f"{place} holds no safetensors weights.", hint="A base has a model.safetensors.", code="no_weights")
    if "config.json" not in names:
        raise InvalidRequest(f"{place} has no config.json.", hint="An adapter is no base: name the model it was made on.")
    if not names & set(TOKENIZERS):
        raise InvalidRequest(f"{place} has no tokenizer.json.", hint="Save the tokenizer beside the weights.")


def refuse_remote_code(folder: Path) -> None:
    """Raises InvalidRequest when a JSON file of the folder asks for code of the repository to be run (`auto_map`)."""
    for path in sorted(folder.glob("*config.json")):
        if read_json(path).get("auto_map"):
            raise InvalidRequest(
                f"{path.name} asks to run code that comes with the model (auto_map).",
                hint="Tunesmith runs only architectures that transformers has; take a version of the model without auto_map.",
                code="remote_code",
            )


def weight_names(folder: Path) -> set[str]:
    """Names of the safetensors files that make up the model: those in the index, or the one file."""
    if not (folder / INDEX).exists():
        return {"model.safetensors"}
    names = {str(name) for name in read_json(folder / INDEX).get("weight_map", {}).values()}
    foreign = sorted(name for name in names if "/" in name or not name.endswith(".safetensors"))
    if foreign or not names:
        raise InvalidRequest(f"{INDEX} names no safetensors file of its folder: {foreign}.", hint=NO_PICKLE)
    return names


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises InvalidRequest when it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidRequest(f"{path.name} is not JSON: {error}.", hint="The file is damaged; get it again.") from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path.name} holds no JSON object.", hint="The file is damaged; get it again.")
    return value


def check_folder(folder: Path) -> None:
    """Raises InvalidRequest when `folder` is not a base that we can load safely, NotFound when it is no folder."""
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}.", hint="Name the folder that holds the model's config.json.", param="path")
    refuse_unfit_names({path.name for path in folder.iterdir()}, str(folder))
    refuse_remote_code(folder)
    missing = sorted(name for name in weight_names(folder) if not (folder / name).is_file())
    if missing:
        raise InvalidRequest(f"{folder} lacks {missing[0]}.", hint=f"{INDEX} names it; copy it there too.")


# -- adding and removing ------------------------------------------------------------------------------------------------


def add(path: Path, models_dir: Path, *, name: str | None = None, copy: bool = False) -> Source:
    """Puts the model in the folder `path` on the shelf: a pointer to it, or a copy.

    Raises InvalidRequest for what is not a base or a name that is taken, NotFound for no folder, StorageFull.
    """
    path = path.expanduser().resolve()
    check_folder(path)
    base_id = name or path.name
    folder = folder_of(base_id, models_dir)
    if folder.exists() or base_id == BUILT_IN:
        hint = "Choose another --name, or remove it first."
        raise InvalidRequest(f"There is already a base named {base_id}.", hint=hint, param="name", code="already_exists")
    models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    source = Source(base_id, "copy" if copy else "link", path=str(path), added_at=int(time.time()))
    part = models_dir / f".{folder.name}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir(mode=0o700)
        if copy:
            for file in wanted_names({p.name for p in path.iterdir() if p.is_file()}) | weight_names(path):
                shutil.copyfile(path / file, part / file)
        write_source(part, source)
        os.replace(part, folder)
        fsync_folder(models_dir)
    except OSError as error:
        raise storage_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return source


def wanted_names(names: set[str]) -> set[str]:
    """Those files of a model, beside the weights, that we take: configuration, tokenizer, chat template; nothing that runs."""
    return {
        name
        for name in names
        if "/" not in name and not name.startswith(".") and name != SOURCE
        and (Path(name).suffix in {".json", ".jinja", ".txt"} or name == "tokenizer.model")
    }


def find_on_shelf(base_id: str, models_dir: Path) -> Source:
    """Where a base on the shelf came from. Raises NotFound, and InvalidRequest for the built-in one, which cannot go."""
    if base_id == BUILT_IN:
        raise InvalidRequest(f"{BUILT_IN} comes with Tunesmith and stays.", hint="`tunesmith models list` shows what can go.")
    source = read_source(folder_of(base_id, models_dir))
    if source is None:
        raise NotFound(f"There is no base named {base_id} in {models_dir}.", hint="`tunesmith models list` shows what there is.")
    return source


def remove(base_id: str, models_dir: Path) -> Source:
    """Takes a base off the shelf: deletes our files, never those that a link points to. Raises as `find_on_shelf` does.

    A kill in the middle leaves no half a base: the folder is renamed out of sight before it is emptied.
    """
    source = find_on_shelf(base_id, models_dir)
    folder = folder_of(base_id, models_dir)
    gone = models_dir / f".{folder.name}.{secrets.token_hex(4)}.part"
    os.replace(folder, gone)
    shutil.rmtree(gone)
    return source
