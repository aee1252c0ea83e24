"""LLaMA-Factory's dataset_info.json: what an entry says of a dataset's file, columns and turns, as fields of a DataRecipe."""

import json
from pathlib import Path
from typing import Any

from tunesmith.errors import InvalidData, NotFound

FILE = "dataset_info.json"
COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
"""Formatting -> the entry's word for a column -> our field, where these differ."""
SAME = ("history", "system", "tools", "chosen", "rejected")
ROLES = {
    "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool", "function_tag": "function_call",
    "system_tag": "system",
}
KNOWN = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "subset", "split", "formatting", "ranking", "columns", "tags"}


def read(folder: Path) -> dict[str, Any]:
    """Name -> entry. Raises InvalidData."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidData(f"{folder / FILE} cannot be read: {error}.", hint="Mend the file.") from error
    if not isinstance(found, dict):
        raise InvalidData(f"{folder / FILE} holds no object.", hint="It is a table of names and entries.")
    return found


def to_fields(folder: Path, name: str) -> dict[str, Any]:
    """The entry's fields; a file is named by its path. Raises NotFound, or InvalidData for what is not supported, by its name."""
    entries = read(folder)
    if name not in entries:
        raise NotFound(f"{folder / FILE} has no dataset {name!r}.", hint=f"There are: {', '.join(sorted(entries))[:500]}.")
    entry = entries[name]
    _refuse_unknown(name, entry, KNOWN, "field")
    formatting = {"openai": "sharegpt"}.get(entry.get("formatting", "alpaca"), entry.get("formatting", "alpaca"))
    if formatting not in COLUMNS:
        raise _refused(name, f"the formatting {formatting!r}")
    columns, tags = entry.get("columns", {}), entry.get("tags", {})
    known = COLUMNS[formatting] | {column: column for column in SAME} | {"kto_tag": "label"}
    _refuse_unknown(name, columns, set(known), "column")
    _refuse_unknown(name, tags, {"role_tag", "content_tag", *ROLES}, "tag")
    mapped = {known[word]: column for word, column in columns.items()}
    is_text = formatting == "alpaca" and set(columns) == {"prompt"} and not entry.get("ranking")
    if is_text:
        mapped = {"text": columns["prompt"]}
    kind = "preference" if entry.get("ranking") else "kto" if "kto_tag" in columns else "text" if is_text else formatting
    return {
        "train": _file(folder, name, entry),
        "format": kind,
        "map": {ours: theirs for ours, theirs in mapped.items() if ours != theirs},
        "turns": {field: tags[f"{field}_tag"] for field in ("role", "content") if f"{field}_tag" in tags},
        "roles": {tags[tag]: role for tag, role in ROLES.items() if tag in tags},
    }


def _file(folder: Path, name: str, entry: dict[str, Any]) -> str:
    if "file_name" in entry:
        return str(folder / entry["file_name"])
    if "hf_hub_url" not in entry:
        raise _refused(name, "no file_name and no hf_hub_url")
    config = f"{entry['subset']}/" if entry.get("subset") else ""
    return f"hub:{entry['hf_hub_url']}:{config}{entry.get('split', 'train')}"


def _refuse_unknown(name: str, given: Any, known: set[str], noun: str) -> None:
    if not isinstance(given, dict):
        raise _refused(name, f"a {noun} list that is no object")
    unknown = sorted(given.keys() - known)
    if unknown:
        raise _refused(name, f"the {noun} {unknown[0]!r}")


def _refused(name: str, what: str) -> InvalidData:
    said = f"The dataset {name} has {what}, which cannot be used here."
    return InvalidData(said, hint="docs/data.md lists what is read.", code="not_available")
