"""Names in double braces that wait for a value, as in LLaMA-Factory's identity.json: found, filled in. Knows no fields, no files.

Only a plain name without spaces is one: `{{name}}`, but neither `{{ name }}` nor `{{user.name}}`, which templates write.
"""

import re
from typing import Any

PLACEHOLDER = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]{0,63})\}\}")


def fill(value: Any, values: dict[str, str]) -> tuple[Any, set[str], set[str]]:
    """`value` with what `values` has for its placeholders; the names that were found there, and those that were not."""
    names: set[str] = set()

    def one(match: re.Match[str]) -> str:
        names.add(match[1])
        return values.get(match[1], match[0])

    filled = _filled(value, one)
    return filled, names & values.keys(), names - values.keys()


def _filled(value: Any, one: Any) -> Any:
    if isinstance(value, str):
        return PLACEHOLDER.sub(one, value) if "{{" in value else value
    if isinstance(value, dict):
        return {key: _filled(item, one) for key, item in value.items()}
    return [_filled(item, one) for item in value] if isinstance(value, list) else value
