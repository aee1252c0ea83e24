"""The server's own secret: 32 random bytes in its data directory, from which each purpose takes a key of its own.

A copy of the database alone is therefore worth nothing to who wants to guess API keys. Servers that share one database share it.
"""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from tunesmith.errors import TunesmithError

NUM_BYTES = 32


def server_secret(path: Path) -> bytes:
    """The secret in the file `path`, made (mode 0600) if it is not there. Raises TunesmithError for one that is cut short."""
    with suppress(FileNotFoundError):
        return _read(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(secrets.token_bytes(NUM_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        with suppress(FileExistsError):  # another process was first: its secret counts
            os.link(part, path)
    finally:
        part.unlink()
    return _read(path)


def purpose_key(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, so that no secret serves two."""
    return hmac.digest(secret, purpose.encode(), hashlib.sha256)


def _read(path: Path) -> bytes:
    secret = path.read_bytes()
    if len(secret) != NUM_BYTES:
        raise TunesmithError(f"{path} is damaged.", hint="Restore it from a backup; without it no API key works.")
    return secret
