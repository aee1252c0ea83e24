"""Conversations whose turns have other names for role and content, as a recipe tells: brought to those that `shapes.py` knows."""

from typing import Any

from tunesmith.data.cells import json_cell

CONVERSATIONS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
"""Fields that may hold turns."""
ROLES = frozenset({"system", "user", "assistant", "tool", "function_call"})


def renamed_turns(row: dict[str, Any], turns: dict[str, str], roles: dict[str, str]) -> dict[str, Any]:
    """The row with `role` and `content` in each turn. `turns` is our name -> the file's, `roles` the file's role -> ours."""
    if not turns and not roles:
        return row
    return row | {name: _renamed(row[name], turns, roles) for name in CONVERSATIONS if name in row}


def _renamed(value: Any, turns: dict[str, str], roles: dict[str, str]) -> Any:
    value = json_cell(value)
    if isinstance(value, list):
        return [_turn(item, turns, roles) for item in value]
    return _turn(value, turns, roles)


def _turn(item: Any, turns: dict[str, str], roles: dict[str, str]) -> Any:
    """A turn with our names; what is no object, or lacks the fields, is left for the shape to refuse."""
    if not isinstance(item, dict):
        return item
    role, content = (turns.get(name) or _theirs(item, name) for name in ("role", "content"))
    said = roles.get(str(item.get(role)), item.get(role))
    rest = {key: value for key, value in item.items() if key not in (role, content)}
    if said == "function_call":
        return {"from": said, "value": item.get(content)}
    return rest | ({"role": said} if role in item else {}) | ({"content": item[content]} if content in item else {})


def _theirs(item: dict[str, Any], name: str) -> str:
    """What this turn calls `name`: OpenAI's word or ShareGPT's."""
    other = {"role": "from", "content": "value"}[name]
    return other if other in item and name not in item else name
