"""Blobs by sha256, on disk: what was uploaded is kept byte for byte, once. Knows nothing of rows or formats.

The same in S3-compatible storage stands in `store_s3.py`, and so do files by name, which is where checkpoints are copied to.
"""

import errno
import hashlib
import importlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from tunesmith.errors import InvalidRequest, NotFound, StorageFull, TunesmithError


class Blob(NamedTuple):
    sha256: str
    num_bytes: int


def fsync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Readers see the old bytes or the new ones, never a mixture. Raises StorageFull; the old file then stands."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        fsync_folder(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path) -> Exception:
    """StorageFull for a full disk, quota or file size limit; any other OSError as it is."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StorageFull(f"The disk that holds {path.parent} is full.", hint="Free some space and try again; nothing was lost.")
    return error


CHUNK_BYTES = 1024 * 1024


class BlobStore:
    """Blobs under `root/ab/abcdef...`. What is being written lies in `root/.*.new`."""

    def __init__(self, root: Path):
        self.root = root

    def put(self, chunks: Iterable[bytes], *, max_bytes: int | None = None, param: str = "file") -> Blob:
        """Streams `chunks` to disk. Raises InvalidRequest (of `param`) beyond `max_bytes`, StorageFull when the disk is full.

        After an error nothing is left behind.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.root / f".{secrets.token_hex(8)}.new"
        try:
            blob = _write(new, chunks, max_bytes, param)
            self._keep(new, blob.sha256)
        except OSError as error:
            raise storage_error(error, new) from error
        finally:
            new.unlink(missing_ok=True)
        return blob

    def path(self, sha256: str) -> Path:
        """The blob's file. Raises NotFound if it is not there."""
        self.check(sha256)
        return self._file(sha256)

    def check(self, sha256: str) -> None:
        """Raises NotFound if the blob is not there."""
        if not self._file(sha256).is_file():
            raise missing(sha256)

    def chunks(self, sha256: str) -> Iterator[bytes]:
        """The blob's bytes, piece by piece. It is open when this returns. Raises NotFound."""
        try:
            file = open(self._file(sha256), "rb")  # noqa: SIM115  (closed when the pieces are read, or given up)
        except FileNotFoundError as error:
            raise missing(sha256) from error
        return pieces(file)

    def read(self, sha256: str) -> bytes:
        """The whole blob, for small ones. Raises NotFound."""
        return b"".join(self.chunks(sha256))

    def fetch(self, sha256: str, target: Path) -> None:
        """The blob as the file `target`: a hard link, which costs no space, or else a copy. Raises NotFound, StorageFull."""
        self.check(sha256)
        try:
            os.link(self._file(sha256), target)
        except OSError:
            self._copy(sha256, target)

    def delete(self, sha256: str) -> None:
        self._file(sha256).unlink(missing_ok=True)

    def list_old(self, seconds: float) -> Iterator[str]:
        """Names of blobs that were put more than `seconds` ago."""
        for path in self.root.glob("??/*"):
            if _age(path) > seconds:
                yield path.name

    def clear(self, seconds: float) -> int:
        """Removes what was begun more than `seconds` ago and never finished, because the server was killed; how many."""
        left = [path for path in self.root.glob(".*.new") if _age(path) > seconds]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    # -- one floor down -----------------------------------------------------------------------------------------------

    def _file(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    def _keep(self, new: Path, sha256: str) -> None:
        """Makes the whole file `new` the blob."""
        final = self._file(sha256)
        final.parent.mkdir(exist_ok=True, mode=0o700)
        os.replace(new, final)
        fsync_folder(final.parent)

    def _copy(self, sha256: str, target: Path) -> None:
        partial = target.with_name(f".{target.name}.new")
        try:
            with open(partial, "wb") as file:
                file.writelines(self.chunks(sha256))
            os.replace(partial, target)
        except OSError as error:
            raise storage_error(error, target) from error
        finally:
            partial.unlink(missing_ok=True)


def open_store(root: Path, url: str | None = None) -> BlobStore:
    """The blobs under `root`, or those at `url` (s3://bucket/prefix), with `root` for what comes in.

    Raises InvalidRequest for storage that is not there, TunesmithError when the programs for it are not installed.
    """
    if url is None:
        return BlobStore(root)
    store = _s3().S3Store(url, root)
    assert isinstance(store, BlobStore)
    return store


class Folder(Protocol):
    """Files by name in a place that is not this machine's; each call raises Busy when the place does not answer or refuses."""

    def names(self) -> list[str]: ...

    def upload(self, path: Path, name: str) -> None: ...

    def download(self, name: str, path: Path) -> None: ...

    def delete(self, name: str) -> None: ...


def open_folder(url: str) -> Folder:
    """The files at `url` (s3://bucket/prefix). Nothing is asked yet. Raises TunesmithError when its client is not installed."""
    folder: Folder = _s3().S3Folder(url)
    return folder


def _s3() -> Any:
    try:
        return importlib.import_module("tunesmith.store_s3")
    except ImportError as error:
        raise TunesmithError("S3 needs its client.", hint="Install it: pip install 'tunesmith[s3]'.") from error


def missing(sha256: str) -> NotFound:
    return NotFound(f"The content {sha256[:12]} is not in the store.", hint="Upload the file again.")


def _write(path: Path, chunks: Iterable[bytes], max_bytes: int | None, param: str) -> Blob:
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if max_bytes is not None and size > max_bytes:
                message = f"The file is larger than {max_bytes} bytes."
                raise InvalidRequest(message, hint="Split it.", param=param, code="file_too_large")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Blob(digest.hexdigest(), size)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """The rest of an open file, which is closed when they are read, or given up."""
    with file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _age(path: Path) -> float:
    """Seconds since the file was written; 0 for one that went meanwhile."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
