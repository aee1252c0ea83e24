"""Brings a base from a Hugging Face hub to the shelf: pinned to a commit, without pickle and without code of its own.

Knows nothing of torch, databases or progress bars. What is downloaded lies in a hidden folder beside the final one until
all of it is there and right; then it is renamed.
"""

import os
import re
import shutil
import time
from pathlib import Path

from tunesmith.errors import InvalidRequest, StorageFull
from tunesmith.hub import Listing, Report, fetch_files, list_files, only_here, sha256_of
from tunesmith.models.shelf import (
    Source,
    folder_name,
    folder_of,
    read_source,
    refuse_remote_code,
    refuse_unfit_names,
    wanted_names,
    weight_names,
    write_source,
)
from tunesmith.store import fsync_folder

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def pull(repo: str, models_dir: Path, *, revision: str | None = None, report: Report = lambda name, done, total: None) -> Source:
    """Brings `repo` (`org/name`) at `revision` (branch, tag or commit) to the shelf, under its own name.

    Raises NotFound, Unauthorized, InvalidRequest (not a base that we load), StorageFull, and TunesmithError for a hub that
    cannot be reached or sends wrong bytes. After any of them, or a kill, the same call goes on where it stopped.
    """
    if not REPO.fullmatch(repo):
        raise InvalidRequest(f"{repo!r} is not a name on the hub.", hint="Write ORG/NAME, such as HuggingFaceTB/SmolLM2-135M.")
    final = folder_of(repo, models_dir)
    listing = list_files(repo, revision)
    models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = models_dir / f".{folder_name(repo)}.{listing.commit[:12]}.part"
    with only_here(part, repo):
        if final.exists():
            part.rmdir() if not any(part.iterdir()) else shutil.rmtree(part)
            return _already_here(final, listing)
        refuse_unfit_names(set(listing.files), repo)
        names = _download_all(listing, part, report)
        source = Source(
            repo, "hub", endpoint=listing.endpoint, revision=listing.commit, added_at=int(time.time()),
            files={name: sha256_of(part / name) for name in sorted(names)},
        )
        write_source(part, source)
        os.replace(part, final)
        fsync_folder(models_dir)
    for stale in models_dir.glob(f".{folder_name(repo)}.*.part"):
        shutil.rmtree(stale, ignore_errors=True)
    return source


# -- downloading ----------------------------------------------------------------------------------------------------------


def _download_all(listing: Listing, part: Path, report: Report) -> set[str]:
    """Small files first, for they say which weights there are and whether the model is one that we may load."""
    small = wanted_names(set(listing.files))
    fetch_files(listing, small, part, report)
    refuse_remote_code(part)
    weights = weight_names(part)
    missing = sorted(weights - set(listing.files))
    if missing:
        raise InvalidRequest(f"{listing.repo} lacks its own weights file {missing[0]}.", hint="Its upload may not be finished.")
    _refuse_full_disk(listing, weights, part)
    fetch_files(listing, weights, part, report)
    return small | weights


# -- refusals ---------------------------------------------------------------------------------------------------------------


def _refuse_full_disk(listing: Listing, weights: set[str], part: Path) -> None:
    here = sum(path.stat().st_size for path in part.iterdir() if path.name.removesuffix(".part") in weights)
    needed = sum(listing.files[name].num_bytes for name in weights) - here
    free = shutil.disk_usage(part).free
    if needed > free:
        raise StorageFull(
            f"{listing.repo} needs {needed / 1e9:.1f} GB more; the disk of {part.parent} has {free / 1e9:.1f} GB free.",
            hint="Free some space and run the same command again, or name another --data-dir.",
        )


def _already_here(final: Path, listing: Listing) -> Source:
    source = read_source(final)
    if source is None or source.revision != listing.commit:
        commit = source.revision if source and source.revision else "an unknown commit"
        raise InvalidRequest(
            f"{listing.repo} is already here, at {commit}; you asked for {listing.commit}.",
            hint=f"What was trained on it needs it as it is; `tunesmith models remove {listing.repo}` makes room.",
            code="already_exists",
        )
    return source


