"""A backup as one file: a tar of plain files with manifest.json as its last member. Knows nothing of what the files are.

    manifest.json   {"version": 1, "created": seconds since 1970, ..., "files": {name: {"bytes", "sha256"}}}

Without its manifest a tar is not a backup: it was cut short. Nothing that the manifest does not name is read.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tunesmith.errors import InvalidRequest
from tunesmith.store import fsync_folder, storage_error

MANIFEST = "manifest.json"
VERSION = 1
CHUNK = 1024 * 1024
MAX_MANIFEST_BYTES = 256 * 1024 * 1024


class _Hashing:
    """A file that is read once, and the sha256 of what was read."""

    def __init__(self, file: BinaryIO, seen: Callable[[int], None]):
        self._file = file
        self._seen = seen
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self._seen(len(data))
        return data


def files_of(folder: Path) -> list[Path]:
    """All plain files below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def write(folder: Path, target: Path, facts: dict[str, Any], seen: Callable[[int], None]) -> dict[str, Any]:
    """Writes all files below `folder` to `target`, which appears only when it is whole; the manifest. `seen` is told of bytes.

    Raises StorageFull.
    """
    part = target.with_name(f".{target.name}.part")
    listed: dict[str, Any] = {}
    manifest = {"version": VERSION, **facts, "files": listed}
    try:
        with open(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w|") as tar:
                for path in files_of(folder):
                    name = path.relative_to(folder).as_posix()
                    listed[name] = _add(tar, path, name, seen)
                text = json.dumps(manifest, indent=1).encode()
                tar.addfile(_info(MANIFEST, len(text)), io.BytesIO(text))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        fsync_folder(target.parent)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        part.unlink(missing_ok=True)
    return manifest


def _add(tar: tarfile.TarFile, path: Path, name: str, seen: Callable[[int], None]) -> dict[str, Any]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size  # a file that grows meanwhile is kept up to here
        hashing = _Hashing(file, seen)
        tar.addfile(_info(name, size), hashing)  # type: ignore[arg-type]
    return {"bytes": size, "sha256": hashing.digest.hexdigest()}


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


@contextmanager
def opened(source: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, Any]]]:
    """A backup and its manifest. Raises InvalidRequest for what is none."""
    try:
        with tarfile.open(source, "r:") as tar:
            members = tar.getmembers()
            last = members[-1] if members else None
            if last is None or last.name != MANIFEST or last.size > MAX_MANIFEST_BYTES:
                raise tarfile.ReadError("no manifest at its end")
            text = tar.extractfile(last)
            assert text is not None
            manifest = json.loads(text.read())
            if manifest.get("version") != VERSION:
                raise tarfile.ReadError(f"version {manifest.get('version')}")
            yield tar, manifest
    except FileNotFoundError as error:
        raise InvalidRequest(f"There is no file {source}.", hint="Name what `tunesmith backup` wrote.", param="file") from error
    except (tarfile.TarError, json.JSONDecodeError) as error:
        message = f"{source} is not a whole backup: {error}."
        raise InvalidRequest(message, hint="Take another copy.", param="file") from error


def extract(tar: tarfile.TarFile, manifest: dict[str, Any], folder: Path, seen: Callable[[int], None]) -> None:
    """All files of the manifest to `folder`, each compared with its sha256. Raises InvalidRequest, StorageFull."""
    listed, found = manifest["files"], set()
    for member in tar:
        if member.name == MANIFEST:
            continue
        expected, name = listed.get(member.name), PurePosixPath(member.name)
        if expected is None or not member.isreg() or name.is_absolute() or ".." in name.parts:
            message = f"The backup holds something foreign: {member.name[:200]}."
            raise InvalidRequest(message, hint="Take another copy.", param="file")
        if _extract(tar, member, folder / name, seen) != expected["sha256"]:
            raise InvalidRequest(f"{member.name} is damaged in the backup.", hint="Take another copy.", param="file")
        found.add(member.name)
    if missing := sorted(set(listed) - found):
        raise InvalidRequest(f"{missing[0]} is missing in the backup.", hint="Take another copy.", param="file")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, seen: Callable[[int], None]) -> str:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, file = hashlib.sha256(), tar.extractfile(member)
    assert file is not None
    try:
        with open(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
            while data := file.read(CHUNK):
                digest.update(data)
                seen(len(data))
                out.write(data)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise storage_error(error, target) from error
    return digest.hexdigest()
