"""Brings a split of a dataset from a Hugging Face hub, pinned to a commit: its JSON, JSONL, CSV or Parquet files, and never code.

Which files a split is, the dataset's page says (`configs` at the head of its README.md), or else the files' own names do. A
dataset that is a script has its rows as Parquet in a branch that the hub makes, and those are taken. Knows no rows.
"""

import os
import re
import shutil
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub.repocard import metadata_load

from tunesmith.data.records import SUFFIXES
from tunesmith.data.sources import Brought, HubName
from tunesmith.errors import InvalidData, NotFound
from tunesmith.hub import Listing, Report, fetch_files, list_files, only_here
from tunesmith.store import fsync_folder

CONVERTED = "refs/convert/parquet"
"""The branch with every dataset's rows as Parquet, in folders named by configuration and split."""
README = "README.md"
WORDS = {
    "train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> words in a file's path that say it, as the `datasets` library has them."""


def bring(name: HubName, folder: Path, report: Report = lambda name, done, total: None) -> Brought:
    """The split's file, or the folder of its files, under `folder`; downloaded unless it is there.

    After a kill the same call goes on where it stopped.
    Raises NotFound, Unauthorized, StorageFull, InvalidData for a split without files that can be read, and TunesmithError for a
    hub that cannot be reached or sends wrong bytes.
    """
    listing = list_files(name.repo, name.revision, "dataset")
    if name.revision is None and not any(_is_data(file) for file in listing.files):
        listing = list_files(name.repo, CONVERTED, "dataset")
    repo, split = name.repo.replace("/", "--"), f"{name.config or 'default'}--{name.split}"
    wanted = f"{repo}--{listing.commit[:12]}--{split}"
    source = f"hub:{name.repo}@{listing.commit}:{f'{name.config}/' if name.config else ''}{name.split}"
    final = folder / wanted
    if not final.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = folder / f".{wanted}.part"
        with only_here(part, name.repo):
            if README in listing.files:
                fetch_files(listing, {README}, part, report)
            fetch_files(listing, _files(listing, name, part / README), part, report)
            (part / README).unlink(missing_ok=True)
            os.replace(part, final)
            fsync_folder(folder)
    for stale in folder.glob(f".{repo}--*--{split}.part"):
        shutil.rmtree(stale, ignore_errors=True)
    files = [path for path in final.rglob("*") if path.is_file()]
    return Brought(files[0] if len(files) == 1 else final, source)


def _files(listing: Listing, name: HubName, readme: Path) -> set[str]:
    """The files of the split, all of one kind. Raises NotFound or InvalidData."""
    there = {file for file in listing.files if _is_data(file)}
    configs = (metadata_load(readme) or {}).get("configs") if readme.is_file() else None
    found = _told(configs, name, there) if configs else _named(there, name)
    if not found:
        listed = ", ".join(sorted(there))[:300] or "none"
        raise NotFound(
            f"The dataset {name.repo} has no files for the split {name.split!r}.",
            hint=f"Files that can be read: {listed}; name a split as hub:{name.repo}:SPLIT.", param="data.train",
        )
    kinds = Counter(PurePosixPath(file).suffix for file in found)
    kind = min(kinds, key=lambda suffix: (-kinds[suffix], suffix != ".parquet", suffix != ".jsonl", suffix))
    return {file for file in found if file.endswith(kind)}


def _told(configs: list[dict[str, Any]], name: HubName, there: set[str]) -> set[str]:
    """The files that the dataset's page says: a configuration's patterns, for a split each."""
    by_name = {str(config.get("config_name", "default")): config for config in configs}
    default = next((each for each, config in by_name.items() if config.get("default")), "default")
    wanted = name.config or (default if default in by_name or len(by_name) > 1 else next(iter(by_name)))
    if wanted not in by_name:
        shown = ", ".join(sorted(by_name))
        raise InvalidData(
            f"The dataset {name.repo} has several configurations.",
            hint=f"Name one, as hub:{name.repo}:CONFIG/{name.split}: {shown}.", param="data.train",
        )
    given = by_name[wanted].get("data_files")
    if given is None:
        under = str(by_name[wanted].get("data_dir", "")).strip("/")
        return _named({file for file in there if file.startswith(under)}, name._replace(config=None))
    parts = given if isinstance(given, list) else [given]
    parts = [part if isinstance(part, dict) else {"split": "train", "path": part} for part in parts]
    patterns = [pattern for part in parts if part.get("split", "train") == name.split for pattern in _as_list(part.get("path"))]
    return {file for file in there if any(fnmatch(file, pattern) for pattern in patterns)}


def _as_list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _named(there: set[str], name: HubName) -> set[str]:
    """The files whose path says the split; all, for train, where no path says any."""
    if name.config is not None:
        there = {file for file in there if name.config in PurePosixPath(file).parts[:-1] or _stem(file) == name.config}
    says = {file: _split_of(file) for file in there}
    if name.split == "train" and not any(says.values()):
        return there
    return {file for file in there if says[file] == name.split or _says(file, name.split)}


def _split_of(file: str) -> str | None:
    return next((split for split, words in WORDS.items() if any(_says(file, word) for word in words)), None)


def _says(file: str, word: str) -> bool:
    return re.search(rf"(^|[^a-zA-Z]){re.escape(word)}([^a-zA-Z]|$)", file) is not None


def _stem(file: str) -> str:
    return PurePosixPath(file).name.partition(".")[0]


def _is_data(file: str) -> bool:
    return file.lower().endswith(SUFFIXES) and PurePosixPath(file).name != "dataset_infos.json"
