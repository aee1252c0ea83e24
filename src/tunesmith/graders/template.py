"""`{{ item.answer }}` in a text becomes what the row says. Two names are known, `item` and `sample`; nothing is computed.

A path is a name, then `.key`, `["key"]` or `[0]`, as often as wanted. A value that is no text is written as JSON.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.errors import InvalidRequest, TunesmithError

NAMESPACES = ("item", "sample")
HOLE = re.compile(r"\{\{([^{}]*)\}\}")
"""No braces inside: so that a text of a million braces is read once, and not once per brace."""
STEP = re.compile(r"""\.\s*([\w-]+)|\[\s*(\d+)\s*\]|\[\s*"([^"\]]*)"\s*\]|\[\s*'([^'\]]*)'\s*\]""")
HEAD = re.compile(r"\w+")

Path = tuple[str | int, ...]
Values = Mapping[str, Any]
"""{"item": ..., "sample": ...}"""


class MissingVariable(TunesmithError):
    """A row has nothing under a path that a template names."""

    code = "invalid_variable"
    status = 400


def parse_path(text: str) -> Path:
    """`item.answers[0].text` -> ("item", "answers", 0, "text"). Raises InvalidRequest."""
    text = text.strip()
    head = HEAD.match(text)
    if head is None or head.group() not in NAMESPACES:
        raise _bad(text, f"begins with neither {' nor '.join(NAMESPACES)}")
    path: list[str | int] = [head.group()]
    end = head.end()
    while end < len(text):
        step = STEP.match(text, end)
        if step is None:
            raise _bad(text, f"cannot be read at {text[end:][:20]!r}")
        key, index, *quoted = step.groups()
        path.append(int(index) if index else key or quoted[0] or quoted[1] or "")
        end = step.end()
    return tuple(path)


def _bad(text: str, reason: str) -> InvalidRequest:
    hint = "Write such as {{ item.answer }}, {{ item.list[0] }} or {{ sample.output_text }}."
    return InvalidRequest(f"The template {{{{ {text[:80]} }}}} {reason}.", hint=hint, code="invalid_template")


def paths(text: str) -> list[Path]:
    """Of every template in `text`. Raises InvalidRequest for one that cannot be read."""
    return [parse_path(hole) for hole in HOLE.findall(text)]


def look_up(path: Path, values: Values) -> Any:
    """Raises MissingVariable."""
    found: Any = values
    for step in path:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError) as error:
            raise MissingVariable(f"There is no {written(path)}.", hint="The row has no such field.") from error
    return found


def written(path: Path) -> str:
    """The path as a template has it."""
    return str(path[0]) + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path[1:])


def render(text: str, values: Values) -> str:
    """The text with every template filled in. Raises MissingVariable; what a row says is not read as a template again."""
    return HOLE.sub(lambda hole: _shown(look_up(parse_path(hole.group(1)), values)), text)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
