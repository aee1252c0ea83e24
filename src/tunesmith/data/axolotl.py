"""The datasets of an Axolotl configuration (YAML), as fields of a DataRecipe. What is asked beyond that is refused by its name.

Prompts are rendered by the base's own chat template, as it is served; Axolotl's instruction texts are not used.
"""

from pathlib import Path
from typing import Any

import yaml

from tunesmith.errors import InvalidData, NotFound

HARMLESS = {"ds_type", "chat_template", "conversation"}
"""What changes neither rows nor what trains of them here."""
FIELDS = {
    "alpaca": {"field_instruction": "instruction", "field_input": "input", "field_output": "output", "field_system": "system"},
    "sharegpt": {"field_messages": "conversations", "field": "conversations"},
    "chat_template": {
        "field_messages": "messages", "field_tools": "tools", "field_chosen": "chosen", "field_rejected": "rejected",
    },
    "completion": {"field": "text"},
    "input_output": {},
}
"""Type -> the entry's word for a column -> our field."""
FORMATS = {"alpaca": "alpaca", "sharegpt": "sharegpt", "chat_template": "auto", "completion": "text", "input_output": "segments"}
DEFAULTS = {"roles_to_train": (["assistant"], ["gpt"], ["assistant", "gpt"]), "train_on_eos": ("turn", "all")}
"""What may be asked for because it is what happens: answers train, each with the token that ends it."""
ROLE = {"tool": "tool", "user": "user", "assistant": "assistant", "system": "system"}


def to_fields(path: Path, number: str) -> dict[str, Any]:
    """The fields of the only dataset, or of number 1, 2, ... Raises NotFound, or InvalidData naming what is not supported."""
    entries = _entries(path)
    if not number and len(entries) > 1:
        raise InvalidData(f"{path.name} has {len(entries)} datasets.", hint=f"Name one, such as {path}#1.")
    if number and (not number.isdigit() or not 1 <= int(number) <= len(entries)):
        raise NotFound(f"{path.name} has no dataset {number}.", hint=f"It has {len(entries)}, counted from 1.")
    entry = dict(entries[int(number or 1) - 1])
    kind = entry.pop("type", "chat_template")
    if isinstance(kind, dict):  # an alpaca whose columns are named in the type
        entry, kind = {**kind, **entry}, "alpaca"
    kind = {"chat_template.default": "chat_template"}.get(kind, kind)
    if kind not in FIELDS:
        raise _refused(path, f"the type {kind!r}")
    where = _where(path, entry)
    turns = _turns(path, entry)
    roles = {theirs: ROLE[ours] for ours, names in entry.pop("roles", {}).items() if ours in ROLE for theirs in names}
    mapped = {ours: entry.pop(word) for word, ours in FIELDS[kind].items() if word in entry}
    for name, value in entry.items():
        if name not in HARMLESS and value not in (None, False, *DEFAULTS.get(name, ())):
            raise _refused(path, f"{name}: {value!r}")
    differing = {ours: theirs for ours, theirs in mapped.items() if ours != theirs}
    return {"train": where, "format": FORMATS[kind], "map": differing, "turns": turns, "roles": roles}


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidData(f"{path.name} cannot be read as YAML: {error}.", hint="Mend the file.") from error
    entries = found.get("datasets") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) and "path" in entry for entry in entries):
        raise InvalidData(f"{path.name} has no `datasets` with a path each.", hint="Is it an Axolotl configuration?")
    return entries


def _where(path: Path, entry: dict[str, Any]) -> str:
    """The file beside the configuration or in the working directory, else a dataset on the hub."""
    named, split, config, revision = (entry.pop(name, None) for name in ("path", "split", "name", "revision"))
    files = entry.pop("data_files", None)
    if isinstance(files, str) or (isinstance(files, list) and len(files) == 1):
        named = files if isinstance(files, str) else files[0]
    elif files:
        raise _refused(path, "several data_files")
    for folder in (path.parent, Path()):
        if (folder / named).exists():
            return str(folder / named)
    at = f"@{revision}" if revision else ""
    return f"hub:{named}{at}:{f'{config}/' if config else ''}{split or 'train'}"


def _turns(path: Path, entry: dict[str, Any]) -> dict[str, str]:
    """What turns call their role and content; in older configurations each is a field of its own."""
    given = entry.pop("message_property_mappings", {}) or {}
    renamed = sorted(name for name, theirs in given.items() if name not in {"role", "content"} and name != theirs)
    if renamed:
        raise _refused(path, f"another name for a turn's {renamed[0]}")
    older = {"role": entry.pop("message_field_role", None), "content": entry.pop("message_field_content", None)}
    return {name: given.get(name) or theirs for name, theirs in older.items() if given.get(name) or theirs}


def _refused(path: Path, what: str) -> InvalidData:
    said = f"The dataset in {path.name} has {what}, which cannot be used here."
    return InvalidData(said, hint="docs/data.md lists what is read.", code="not_available")
