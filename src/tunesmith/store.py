"""Blobs by sha256, on disk: what was uploaded is kept byte for byte, once. Knows nothing of rows or formats."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tunesmith.errors import InvalidRequest, NotFound, StorageFull


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


class BlobStore:
    """Blobs under `root/ab/abcdef...`."""

    def __init__(self, root: Path):
        self.root = root

    def path(self, sha256: str) -> Path:
        """The blob's file. Raises NotFound if it is not there."""
        path = self.root / sha256[:2] / sha256
        if not path.is_file():
            raise NotFound(f"The content {sha256[:12]} is not in the store.", hint="Upload the file again.")
        return path

    def put(self, chunks: Iterable[bytes], *, max_bytes: int | None = None) -> Blob:
        """Streams `chunks` to disk. Raises InvalidRequest beyond `max_bytes`, StorageFull when the disk is full.

        After an error nothing is left behind.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.root / f".{secrets.token_hex(8)}.new"
        digest, size = hashlib.sha256(), 0
        try:
            with open(new, "wb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if max_bytes is not None and size > max_bytes:
                        raise InvalidRequest(
                            f"The file is larger than {max_bytes} bytes.", hint="Split it.", param="file", code="file_too_large"
                        )
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            final = self.root / digest.hexdigest()[:2] / digest.hexdigest()
            final.parent.mkdir(exist_ok=True, mode=0o700)
            os.replace(new, final)
            fsync_folder(final.parent)
        except OSError as error:
            raise storage_error(error, new) from error
        finally:
            new.unlink(missing_ok=True)
        return Blob(digest.hexdigest(), size)

    def delete(self, sha256: str) -> None:
        (self.root / sha256[:2] / sha256).unlink(missing_ok=True)
