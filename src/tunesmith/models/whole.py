"""A model all of whose weights were trained, on disk: a base like another, in one folder. Imports no torch.

    model.safetensors (or shards and their index)   the weights
    config.json                                     the old base's, with the precision that the weights have now
    tokenizer.json, chat_template.jinja, ...        the old base's
    artifact.json                                   `AdapterInfo` of kind full: from which base it came, content hash

Its content hash is its revision (`catalog.Base`): adapters of the old base name the old one, and are refused on it.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import OURS, AdapterInfo, Saves, put_in_place, read_adapter, system_error
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.shelf import INDEX, read_json, wanted_names, weight_names
from tunesmith.store import storage_error, write_atomically

FULL_CONFIG = "config.json"


def save_whole(model: Saves, tensors: Mapping[str, Any], folder: Path, base: Base, *, dtype: str) -> AdapterInfo:
    """Writes `tensors`, all weights of `model` in `dtype` (such as float32), as a base in `folder`, whole or not at all.

    Raises StorageFull.
    """
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True, mode=0o700)
        model.save_pretrained(str(part), state_dict=tensors)
        for name in wanted_names({path.name for path in base.folder.iterdir() if path.is_file()}) - {FULL_CONFIG, INDEX, OURS}:
            shutil.copyfile(base.folder / name, part / name)
        config = {key: value for key, value in read_json(base.folder / FULL_CONFIG).items() if key != "torch_dtype"}
        write_atomically(part / FULL_CONFIG, json.dumps(config | {"dtype": dtype}, indent=1).encode())
        info = _info(part, base.id, base.revision, find_base(str(part.absolute())).revision)
        write_atomically(part / OURS, json.dumps(asdict(info) | {"path": "."}, indent=1).encode())
        for name in weight_names(part):
            with open(part / name, "rb") as file:
                os.fsync(file.fileno())
        put_in_place(part, folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    except SafetensorError as error:
        raise system_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _info(folder, info.base, info.base_revision, info.content_hash)


def is_whole(folder: Path) -> bool:
    """Does the folder hold a model of its own, and no adapter?"""
    return (folder / FULL_CONFIG).is_file() and (folder / OURS).is_file()


def read_trained(folder: Path) -> AdapterInfo:
    """What a run made, checked against its hash: an adapter, or a whole model. Raises NotFound, or InvalidRequest."""
    if not is_whole(folder):
        return read_adapter(folder)
    told = read_json(folder / OURS)
    if not {"base", "base_revision", "content_hash"} <= set(told):
        raise InvalidRequest(f"{folder / OURS} is not complete.", hint="Save the model again.")
    revision = find_base(str(folder.absolute())).revision
    if revision != told["content_hash"]:
        raise InvalidRequest(f"The model in {folder} was changed after it was saved.", hint="Take an untouched copy.")
    return _info(folder, told["base"], told["base_revision"], revision)


def _info(folder: Path, base: str, base_revision: str, content_hash: str) -> AdapterInfo:
    return AdapterInfo(
        path=str(folder), content_hash=content_hash, rank=0, alpha=0.0, scaling=0.0, targets=(), base=base,
        base_revision=base_revision, quantization="none", kind="full",
    )
