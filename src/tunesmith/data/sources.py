"""Where rows come from, as `data.train` names it, brought down to files that `records.py` reads. Knows no rows and no network.

    rows.jsonl                   a file, or a folder of files of one kind
    FOLDER/NAME                  a name in the folder's dataset_info.json, as LLaMA-Factory has it
    config.yaml, config.yaml#2   the dataset of an Axolotl configuration, or its second one
    hub:OWNER/NAME               a dataset on a hub; `bring` downloads it
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data import axolotl, dataset_info
from tunesmith.errors import InvalidData, InvalidRecipe, NotFound
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.run import parse_as

HUB = "hub:"
NAME = r"[A-Za-z0-9][\w.-]*"
HUB_NAME = re.compile(rf"hub:(?P<repo>({NAME}/)?{NAME})(@(?P<revision>[\w./-]+))?(:((?P<config>[\w.-]+)/)?(?P<split>[\w.-]+))?")


class HubName(NamedTuple):
    """A dataset on a hub, and which part of it."""

    repo: str
    revision: str | None
    config: str | None
    split: str


class Brought(NamedTuple):
    """What `bring` made of a hub's name: the file or folder, and the name with the commit that it was at."""

    path: Path
    source: str


Bring = Callable[[HubName], Brought]


def located(data: DataRecipe, bring: Bring) -> DataRecipe:
    """The recipe with files in place of every other source. What the recipe says itself wins over what its source says.

    Raises NotFound, InvalidData for a source that cannot be used, and what `bring` raises.
    """
    told = _entry(data.train)
    if told is not None:
        own = data.model_dump(exclude_defaults=True)
        data = parse_as(DataRecipe, {**told, **own, "train": told["train"], "map": {**told["map"], **data.map}})
    paths = {name: _brought(value, bring) for name, value in (("train", data.train), ("validation", data.validation)) if value}
    sources = [brought.source for brought in paths.values() if brought.source]
    return data.model_copy(update={name: str(brought.path) for name, brought in paths.items()} | {"source": ", ".join(sources)})


def hub_name(text: str) -> HubName:
    """`hub:OWNER/NAME[@REVISION][:[CONFIG/]SPLIT]` in its parts. Raises InvalidRecipe."""
    found = HUB_NAME.fullmatch(text)
    if found is None:
        hint = "Write hub:OWNER/NAME, hub:OWNER/NAME:test, hub:OWNER/NAME:CONFIG/train, or hub:OWNER/NAME@REVISION."
        raise InvalidRecipe(f"{text!r} is no dataset on a hub.", hint=hint, param="data.train")
    return HubName(found["repo"], found["revision"], found["config"], found["split"] or "train")


def _entry(name: str) -> dict[str, Any] | None:
    """The fields that an entry of dataset_info.json or of an Axolotl configuration stands for; None for other sources."""
    if name.startswith(HUB):
        return None
    path, _, number = name.partition("#")
    if Path(path).suffix in {".yaml", ".yml"} and Path(path).is_file():
        return axolotl.to_fields(Path(path), number)
    if not Path(name).exists() and (Path(name).parent / dataset_info.FILE).is_file():
        return dataset_info.to_fields(Path(name).parent, Path(name).name)
    return None


def _brought(name: str, bring: Bring) -> Brought:
    if name.startswith(HUB):
        return bring(hub_name(name))
    path = Path(name)
    if path.is_dir() and (path / dataset_info.FILE).is_file():
        names = ", ".join(sorted(dataset_info.read(path)))[:500]
        raise InvalidData(f"{name} holds several datasets.", hint=f"Name one, as {name.rstrip('/')}/NAME: {names}.")
    if not path.exists():
        raise NotFound(f"There is no data file {name}.", hint="Paths in a recipe are taken from the recipe's folder.")
    return Brought(path, "")
