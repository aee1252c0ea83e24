"""Embeddings on the wire: the fields, and vectors that are cut to fewer dimensions. Pure functions."""

import base64
import math
import struct
from typing import Any

from tunesmith.errors import EngineFailed, InvalidRequest
from tunesmith.schemas.fields import DESK, ENGINE, LABEL, Table, check

Json = dict[str, Any]

EMBEDDINGS: Table = {"input": ENGINE, "model": DESK, "dimensions": DESK, "encoding_format": ENGINE, "user": LABEL}
OTHERS = {
    "embedded": frozenset({"cache_salt", "deadline_seconds", "priority"}),
    "vllm": frozenset({"add_special_tokens", "truncate_prompt_tokens"}),
    "openai": None,
}
FORMATS = ("float", "base64")


def check_embeddings(body: Json, engine: str) -> None:
    """Raises InvalidRequest."""
    check(EMBEDDINGS, body, OTHERS[engine])
    size = body.get("dimensions")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise InvalidRequest("dimensions is not a number from 1.", param="dimensions", code="invalid_value")
    if body.get("encoding_format") not in (None, *FORMATS):
        message = f"encoding_format is none of {', '.join(FORMATS)}."
        raise InvalidRequest(message, param="encoding_format", code="invalid_value")


def to_engine(body: Json) -> Json:
    """The question; vectors that will be cut are asked for as numbers."""
    asked = {name: value for name, value in body.items() if name not in {"dimensions", "user"}}
    return asked if body.get("dimensions") is None else asked | {"encoding_format": "float"}


def cut(answer: Json, body: Json) -> Json:
    """The answer with vectors of `dimensions` numbers, of length 1 again, in the format that was asked for.

    Raises InvalidRequest when there are not so many.
    """
    size, is_base64 = body["dimensions"], body.get("encoding_format") == "base64"
    for item in answer["data"]:
        vector = item["embedding"]
        if size > len(vector):
            message = f"This model's embeddings have {len(vector)} dimensions, not {size}."
            raise InvalidRequest(message, hint="Ask for fewer, or leave it out.", param="dimensions", code="invalid_value")
        shorter = unit(vector[:size])
        item["embedding"] = to_base64(shorter) if is_base64 else shorter
    return answer


def unit(vector: list[float]) -> list[float]:
    """Of length 1. Raises EngineFailed for one that has no direction."""
    length = math.hypot(*vector)
    if not 0 < length < math.inf:
        raise EngineFailed("The model computed no valid embedding for this input.")
    return [value / length for value in vector]


def to_base64(vector: list[float]) -> str:
    """Little-endian float32, as the openai package reads it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
