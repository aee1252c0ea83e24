"""Brings a base from a Hugging Face hub: pinned to a commit, checked against the hub's hashes, resumed after a kill.

Knows nothing of torch, databases or progress bars. What is downloaded lies in a hidden folder beside the final one until
all of it is there and right; then it is renamed. huggingface_hub speaks the protocol, but since version 2 it no longer resumes a
download that was killed (its temporary names are random), so the partial files are ours.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from tunesmith.errors import InvalidRequest, NotFound, StorageFull, TunesmithError, Unauthorized
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
from tunesmith.store import fsync_folder, storage_error

# Read at each call, so this holds whoever imported huggingface_hub first. With telemetry on, every request tells the hub
# the version of torch and which program runs us.
constants.HF_HUB_DISABLE_TELEMETRY = True

Report = Callable[[str, int, int], None]
"""Called with a file's name, the number of its bytes that are here, and the number of all its bytes."""

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
AGAIN = "Run the same command again later; it goes on where it stopped."
TOKEN = "Accept its terms on its page, then set HF_TOKEN to a token of yours that may read it."


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its length and the hash that the hub has of it."""

    name: str
    num_bytes: int
    sha256: str | None
    """Of a file in large file storage."""
    git_sha1: str | None
    """Of a small file: git's object id."""


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repo: str
    endpoint: str
    commit: str
    files: dict[str, RemoteFile]


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token() -> str | bool:
    """HF_TOKEN; False (send none) where it is not set, so that a token stored by another program is never used."""
    return os.environ.get("HF_TOKEN") or False


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
    with _only_here(part, repo):
        if final.exists():
            part.rmdir() if not any(part.iterdir()) else shutil.rmtree(part)
            return _already_here(final, listing)
        refuse_unfit_names(set(listing.files), repo)
        names = _download_all(listing, part, report)
        source = Source(
            repo, "hub", endpoint=listing.endpoint, revision=listing.commit, added_at=int(time.time()),
            files={name: _sha256(part / name) for name in sorted(names)},
        )
        write_source(part, source)
        os.replace(part, final)
        fsync_folder(models_dir)
    for stale in models_dir.glob(f".{folder_name(repo)}.*.part"):
        shutil.rmtree(stale, ignore_errors=True)
    return source


def list_files(repo: str, revision: str | None) -> Listing:
    """The repository's files at `revision`, and the commit that this stands for now.

    Raises NotFound, Unauthorized, and TunesmithError when the hub cannot be reached.
    """
    hub = endpoint()
    with _in_one_sentence(repo, revision):
        api = HfApi(endpoint=hub, token=token(), library_name="tunesmith")
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=30)
    if not info.sha or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise TunesmithError(f"{hub} does not say which commit {repo} is at.", hint="Check HF_ENDPOINT.", code="hub_failed")
    files = {
        file.rfilename: RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in info.siblings or []
    }
    return Listing(repo, hub, info.sha, files)


# -- downloading ----------------------------------------------------------------------------------------------------------


def _download_all(listing: Listing, part: Path, report: Report) -> set[str]:
    """Small files first, for they say which weights there are and whether the model is one that we may load."""
    small = wanted_names(set(listing.files))
    _fetch(listing, small, part, report)
    refuse_remote_code(part)
    weights = weight_names(part)
    missing = sorted(weights - set(listing.files))
    if missing:
        raise InvalidRequest(f"{listing.repo} lacks its own weights file {missing[0]}.", hint="Its upload may not be finished.")
    _refuse_full_disk(listing, weights, part)
    _fetch(listing, weights, part, report)
    return small | weights


def _fetch(listing: Listing, names: set[str], part: Path, report: Report) -> None:
    headers = build_hf_headers(token=token(), library_name="tunesmith")
    headers["Accept-Encoding"] = "identity"  # a compressed answer could not be resumed
    for name in sorted(names):
        file = listing.files[name]
        if not (part / name).exists():
            with _in_one_sentence(listing.repo, listing.commit):
                _download(file, listing, part, headers, report)
        report(name, file.num_bytes, file.num_bytes)


def _download(file: RemoteFile, listing: Listing, part: Path, headers: dict[str, str], report: Report) -> None:
    """One file: appended to what a former call left, checked, then given its name."""
    unfinished = part / f"{file.name}.part"
    try:
        # Unbuffered: what has arrived is the kernel's, so a kill loses none of it.
        with open(unfinished, "ab", buffering=0) as out:
            if out.tell() > file.num_bytes:
                out.truncate(0)
            http_get(
                hf_hub_url(listing.repo, file.name, revision=listing.commit, endpoint=listing.endpoint),
                out,
                resume_size=out.tell(),
                headers=headers,
                expected_size=file.num_bytes,
                tqdm_class=partial(_Bar, report, file),
            )
            os.fsync(out.fileno())
    except OSError as error:
        raise storage_error(error, unfinished) from error
    if not _is_right(file, unfinished):
        unfinished.unlink()
        raise TunesmithError(
            f"{file.name} came with another content than {listing.endpoint} has a hash of; it was deleted.",
            hint="Run the same command again; if it happens again, the mirror is not to be trusted.",
            code="wrong_hash",
        )
    os.replace(unfinished, part / file.name)


class _Bar:
    """What http_get takes for a tqdm bar: tells `report` how far the file is."""

    def __init__(self, report: Report, file: RemoteFile, *, initial: int = 0, **tqdm_options: object):
        self._report, self._file, self._done = report, file, initial

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def update(self, num_bytes: int = 1) -> None:
        self._done += num_bytes
        self._report(self._file.name, self._done, self._file.num_bytes)


def _is_right(file: RemoteFile, path: Path) -> bool:
    """Whether the bytes are those that the hub has a hash of. A file without any hash is not."""
    if path.stat().st_size != file.num_bytes:
        return False
    if file.sha256:
        return _sha256(path) == file.sha256
    git = hashlib.sha1(b"blob %d\0" % file.num_bytes + path.read_bytes(), usedforsecurity=False)
    return git.hexdigest() == file.git_sha1


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


@contextmanager
def _only_here(part: Path, repo: str) -> Iterator[None]:
    """Makes `part` and holds it, so that two pulls of one model do not write into each other's files."""
    part.mkdir(exist_ok=True, mode=0o700)
    handle = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TunesmithError(f"Another process is pulling {repo} right now.", hint="Wait for it.", code="busy") from error
    finally:
        os.close(handle)


@contextmanager
def _in_one_sentence(repo: str, revision: str | None) -> Iterator[None]:
    """What huggingface_hub raises, as our errors: one sentence and the next step."""
    hub = endpoint()
    try:
        yield
    except GatedRepoError as error:
        raise Unauthorized(f"{repo} is gated.", hint=TOKEN, code="gated_model") from error
    except RevisionNotFoundError as error:
        raise NotFound(f"{repo} has no revision {revision!r}.", hint="Look at its branches and tags on the hub.") from error
    except RepositoryNotFoundError as error:
        raise NotFound(
            f"{hub} has no model {repo} that you may see.", hint="Check the name; if it is private, set HF_TOKEN."
        ) from error
    except HfHubHTTPError as error:
        raise _answered(error.response.status_code, repo, hub) from error
    except OfflineModeIsEnabled as error:
        raise TunesmithError("HF_HUB_OFFLINE is set, so nothing can be pulled.", hint="Unset it.", code="hub_failed") from error
    except HTTPError as error:
        raise TunesmithError(f"{hub} cannot be reached: {error}.", hint=AGAIN, code="hub_failed") from error
    except (ValueError, KeyError) as error:
        raise TunesmithError(f"{hub} is no hub: {error}.", hint="Check HF_ENDPOINT.", code="hub_failed") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # http_get's own complaint about the number of bytes has no errno
        raise TunesmithError(f"A file of {repo} came incomplete.", hint=AGAIN, code="hub_failed") from error


def _answered(status: int, repo: str, hub: str) -> TunesmithError:
    if status in {401, 403}:
        return Unauthorized(f"{hub} does not let you read {repo} ({status}).", hint=TOKEN, code="gated_model")
    if status == 404:
        return NotFound(f"{hub} has no model {repo}.", hint="Check the name.")
    return TunesmithError(f"{hub} answered {status} for {repo}.", hint=AGAIN, code="hub_failed")
