"""The rows of an eval run, from its file of lines; each is an item, perhaps with a sample, or the reason why it cannot be used.

A client's schema may hold patterns that take for ever: only a worker applies it, never the desk.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from tunesmith.errors import InvalidRequest


class Row(NamedTuple):
    """`sample` is {} when the row brings no answer; `error` says why the row cannot be used."""

    number: int
    item: dict[str, Any]
    sample: dict[str, Any]
    error: str = ""


def check_schema(schema: dict[str, Any]) -> None:
    """Raises InvalidRequest for what is no JSON schema."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        message = f"item_schema is no JSON schema: {error.json_path}: {error.message[:300]}."
        param = "data_source_config.item_schema"
        raise InvalidRequest(message, hint="See json-schema.org.", param=param, code="invalid_schema") from error


def read(path: Path, schema: dict[str, Any] | None) -> Iterator[Row]:
    """Empty lines are no rows. The schema's references are never fetched from elsewhere."""
    validator = None if schema is None else Draft202012Validator(schema, registry=Registry())
    with open(path, "rb") as file:
        for number, line in enumerate(line for line in file if line.strip()):
            yield _row(number, line, validator)


def _row(number: int, line: bytes, validator: Draft202012Validator | None) -> Row:
    try:
        value = parse(line)
    except ValueError as error:
        return Row(number, {}, {}, f"The row is no JSON: {error}.")
    if not isinstance(value, dict) or not isinstance(value.get("item"), dict) or not isinstance(value.get("sample", {}), dict):
        return Row(number, {}, {}, 'The row is no object with an "item", which is an object, and perhaps a "sample".')
    item, sample = value["item"], value.get("sample", {})
    return Row(number, item, sample, _mismatch(item, validator))


def parse(text: bytes | str) -> Any:
    """The value of a JSON text that can be written again anywhere. Raises ValueError: for NaN, half characters, endless depth."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _mismatch(item: dict[str, Any], validator: Draft202012Validator | None) -> str:
    """Why the item does not fulfil the schema; empty when it does."""
    if validator is None:
        return ""
    try:
        validator.validate(item)
    except ValidationError as error:
        return f"The item does not fulfil the eval's schema: {error.json_path.replace('$', 'item', 1)}: {error.message[:300]}."
    except (Unresolvable, RecursionError) as error:
        return f"The eval's schema cannot be applied: {str(error)[:300]}."
    return ""
