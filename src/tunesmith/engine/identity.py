"""Who computes an answer: the base, the adapter, this program. Says which requests may share a cache, and signs answers."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

VERSION = version("tunesmith")


@dataclass(frozen=True)
class Loaded:
    """An adapter that the engine holds."""

    serial: int
    content_hash: str
    num_virtual: int = 0
    """Positions of its soft prompt."""
    is_reward: bool = False
    """Does it give scores, and no answers?"""


FindAdapter = Callable[[str], Loaded | None]
"""The adapter that a request's `model` names; None for the base. Raises NotFound."""


def cache_root(base_revision: str, adapter_hash: str | None, salt: str | None) -> bytes:
    """Where the chain of a prompt's block hashes begins: keys and values are shared by those with the same root only.

    The third part is for images and sounds in the prompt: "none" as long as there is text only.
    """
    return _sha256(base_revision, adapter_hash or "none", "none", salt or "").digest()


def fingerprint(base_revision: str, quantization: str, adapter_hash: str | None) -> str:
    """`system_fingerprint`: the same only for the same weights, precision, adapter and version of the engine."""
    return "ts-" + _sha256(base_revision, quantization, adapter_hash or "none", VERSION).hexdigest()[:16]


def _sha256(*parts: str) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps(parts).encode())
