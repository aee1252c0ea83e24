"""Speaks to a Hugging Face hub: a repository's files at one commit, checked against the hub's hashes, resumed after a kill.

Knows nothing of models or data, torch, databases or progress bars. huggingface_hub speaks the protocol, but since version 2 it no
longer resumes a download that was killed (its temporary names are random), so the partial files are ours.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal

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

from tunesmith.errors import NotFound, TunesmithError, Unauthorized
from tunesmith.store import storage_error

# Read at each call, so this holds whoever imported huggingface_hub first. With telemetry on, every request tells the hub
# the version of torch and which program runs us.
constants.HF_HUB_DISABLE_TELEMETRY = True

Kind = Literal["model", "dataset"]

Report = Callable[[str, int, int], None]
"""Called with a file's name, the number of its bytes that are here, and the number of all its bytes."""

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
    kind: Kind = "model"


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token() -> str | bool:
    """HF_TOKEN; False (send none) where it is not set, so that a token stored by another program is never used."""
    return os.environ.get("HF_TOKEN") or False


def list_files(repo: str, revision: str | None, kind: Kind = "model") -> Listing:
    """The repository's files at `revision`, and the commit that this stands for now.

    Raises NotFound, Unauthorized, and TunesmithError when the hub cannot be reached.
    """
    hub = endpoint()
    with _in_one_sentence(repo, revision, kind):
        api = HfApi(endpoint=hub, token=token(), library_name="tunesmith")
        info = api.repo_info(repo, repo_type=kind, revision=revision, files_metadata=True, timeout=30)
    if not info.sha or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise TunesmithError(f"{hub} does not say which commit {repo} is at.", hint="Check HF_ENDPOINT.", code="hub_failed")
    files = {
        file.rfilename: RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in info.siblings or []
    }
    for name in files:
        if {"", ".", ".."} & set(name.split("/")) or "\\" in name:
            said = f"{hub} lists {name!r} in {repo}, which is no file's name."
            raise TunesmithError(said, hint="Check HF_ENDPOINT.", code="hub_failed")
    return Listing(repo, hub, info.sha, files, kind)


def fetch_files(listing: Listing, names: set[str], part: Path, report: Report) -> None:
    """Brings the named files to `part`, each whole and right; may be called again. Raises as `list_files`, and StorageFull."""
    headers = build_hf_headers(token=token(), library_name="tunesmith")
    headers["Accept-Encoding"] = "identity"  # a compressed answer could not be resumed
    for name in sorted(names):
        file = listing.files[name]
        if not (part / name).exists():
            with _in_one_sentence(listing.repo, listing.commit, listing.kind):
                _download(file, listing, part, headers, report)
        report(name, file.num_bytes, file.num_bytes)


def _download(file: RemoteFile, listing: Listing, part: Path, headers: dict[str, str], report: Report) -> None:
    """One file: appended to what a former call left, checked, then given its name."""
    unfinished = part / f"{file.name}.part"
    unfinished.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        # Unbuffered: what has arrived is the kernel's, so a kill loses none of it.
        with open(unfinished, "ab", buffering=0) as out:
            if out.tell() > file.num_bytes:
                out.truncate(0)
            http_get(
                hf_hub_url(listing.repo, file.name, repo_type=listing.kind, revision=listing.commit, endpoint=listing.endpoint),
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
        return sha256_of(path) == file.sha256
    git = hashlib.sha1(b"blob %d\0" % file.num_bytes + path.read_bytes(), usedforsecurity=False)
    return git.hexdigest() == file.git_sha1


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def only_here(part: Path, repo: str) -> Iterator[None]:
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
def _in_one_sentence(repo: str, revision: str | None, kind: Kind) -> Iterator[None]:
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
            f"{hub} has no {kind} {repo} that you may see.", hint="Check the name; if it is private, set HF_TOKEN."
        ) from error
    except HfHubHTTPError as error:
        raise _answered(error.response.status_code, repo, hub, kind) from error
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


def _answered(status: int, repo: str, hub: str, kind: Kind) -> TunesmithError:
    if status in {401, 403}:
        return Unauthorized(f"{hub} does not let you read {repo} ({status}).", hint=TOKEN, code="gated_model")
    if status == 404:
        return NotFound(f"{hub} has no {kind} {repo}.", hint="Check the name.")
    return TunesmithError(f"{hub} answered {status} for {repo}.", hint=AGAIN, code="hub_failed")
