"""What a cell of a table may hold for a list or an object: its JSON. CSV has no other way, and Arrow's fills in nulls."""

import json
from typing import Any


def json_cell(value: Any) -> Any:
    """The list or object that a text is the JSON of; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
