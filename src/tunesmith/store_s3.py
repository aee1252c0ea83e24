"""Blobs by sha256, and files by name, in S3-compatible storage. What comes in lies in a local folder until it is whole.
Knows nothing of rows.

Imported by name (`store.open_store`), when a server is told to use it: it needs the extra `s3`. Keys, region and address are
those of AWS's own tools: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ~/.aws.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError
from s3fs import S3FileSystem

from tunesmith.errors import Busy, InvalidRequest
from tunesmith.store import BlobStore, missing, pieces

READ_BYTES = 4 * 1024 * 1024
"""Asked for at a time; two of them are in memory per download."""


class S3Store(BlobStore):
    """Blobs under `s3://bucket/prefix/ab/abcdef...`."""

    def __init__(self, url: str, root: Path):
        """`root` is the local folder. Raises InvalidRequest for a URL without a bucket, or a bucket that is not there."""
        super().__init__(root)
        self._prefix = url.removeprefix("s3://").rstrip("/")
        self._s3 = _filesystem()
        bucket = self._prefix.partition("/")[0]
        try:
            if not url.startswith("s3://") or not bucket:
                raise FileNotFoundError(url)
            with _telling():
                self._s3.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError as error:
            message = f"There is no storage {url}."
            raise InvalidRequest(message, hint="Write it like s3://bucket/prefix.", param="store") from error

    def check(self, sha256: str) -> None:
        with _telling(sha256):
            self._s3.info(self._key(sha256))

    def chunks(self, sha256: str) -> Iterator[bytes]:
        with _telling(sha256):
            file = self._s3.open(self._key(sha256), "rb", block_size=READ_BYTES, cache_type="readahead")
        return _told(pieces(file), sha256)

    def fetch(self, sha256: str, target: Path) -> None:
        self._copy(sha256, target)

    def delete(self, sha256: str) -> None:
        with _telling(), suppress(FileNotFoundError):
            self._s3.rm_file(self._key(sha256))

    def list_old(self, seconds: float) -> Iterator[str]:
        now = time.time()
        with _telling():
            for key, info in self._s3.find(self._prefix, detail=True).items():
                if now - info["LastModified"].timestamp() > seconds:
                    yield key.rpartition("/")[2]

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}/{sha256[:2]}/{sha256}"

    def _keep(self, new: Path, sha256: str) -> None:
        with _telling():
            self._s3.put_file(str(new), self._key(sha256))


class S3Folder:
    """Files under `s3://bucket/prefix/`, by the name that follows."""

    def __init__(self, url: str):
        self._prefix = url.removeprefix("s3://").rstrip("/")
        self._s3 = _filesystem()

    def names(self) -> list[str]:
        with _answering():
            return [key.removeprefix(f"{self._prefix}/") for key in self._s3.find(self._prefix)]

    def upload(self, path: Path, name: str) -> None:
        with _answering():
            self._s3.put_file(str(path), f"{self._prefix}/{name}")

    def download(self, name: str, path: Path) -> None:
        with _answering():
            self._s3.get_file(f"{self._prefix}/{name}", str(path))

    def delete(self, name: str) -> None:
        with _answering():
            self._s3.rm_file(f"{self._prefix}/{name}")


def _filesystem() -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3FileSystem(use_listings_cache=False, endpoint_url=endpoint)


@contextmanager
def _answering() -> Iterator[None]:
    """Raises Busy for whatever goes wrong, a missing bucket or file included."""
    try:
        yield
    except (BotoCoreError, OSError) as error:
        raise Busy(f"The storage does not answer: {error}.", hint="See its address, its bucket and its keys.") from error


@contextmanager
def _telling(sha256: str | None = None) -> Iterator[None]:
    """Raises NotFound where the blob `sha256` is not there, Busy where the storage does not answer or refuses."""
    try:
        yield
    except FileNotFoundError as error:
        if sha256 is None:
            raise
        raise missing(sha256) from error
    except (BotoCoreError, OSError) as error:
        raise Busy(f"The storage does not answer: {error}.", hint="Try again; see its address and keys.") from error


def _told(chunks: Iterator[bytes], sha256: str) -> Iterator[bytes]:
    with _telling(sha256):
        yield from chunks
