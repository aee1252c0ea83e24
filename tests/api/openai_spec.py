"""OpenAI's specification as a judge: is this answer what the specification says? And which operations and fields does it have?

The file is cut from the specification by scripts/cut_openai_spec.py (MIT). Knows nothing of our code.
"""

import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

FILE = Path(__file__).with_name("openai-spec.json.gz")
ROOT = "urn:openai"
ERROR = {
    "type": "object", "required": ["error"], "additionalProperties": False,
    "properties": {"error": {
        "type": "object", "required": ["message", "type", "param", "code"], "additionalProperties": False,
        "properties": {
            "message": {"type": "string", "minLength": 1}, "type": {"type": "string"},
            "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
        },
    }},
}


class Operation(NamedTuple):
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@cache
def spec() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()), object_hook=_with_exclusive_bounds)
    return whole


def _with_exclusive_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """The specification is OpenAPI 3.1 but writes `exclusiveMinimum: true` as 3.0 did; read as a number, that would be 1."""
    if schema.get("exclusiveMinimum") is True:
        return {key: value for key, value in schema.items() if key != "minimum"} | {"exclusiveMinimum": schema["minimum"]}
    return schema


def operations() -> list[Operation]:
    return [Operation(method.upper(), path) for path, methods in spec()["paths"].items() for method in methods]


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Paths without parameters come first; a model's name may hold slashes."""
    paths = sorted(spec()["paths"], key=lambda path: path.count("{"))
    wide = {"{model}": "(?!jobs).+", "{fine_tuned_model_checkpoint}": ".+"}
    patterns = []
    for path in paths:
        pattern = re.sub(r"\{[^}]+\}", lambda found: wide.get(found.group(), "[^/]+"), path)
        patterns.append((re.compile(f"/v1{pattern}"), path))
    return patterns


def find(method: str, path: str) -> Operation | None:
    """The operation that a request of ours meant; None for what the specification does not have."""
    for pattern, template in _patterns():
        if pattern.fullmatch(path) and method.lower() in spec()["paths"][template]:
            return Operation(method.upper(), template)
    return None


@cache
def _registry() -> Registry:
    return Registry().with_resource(ROOT, Resource(spec(), DRAFT202012))


def _absolute(value: Any) -> Any:
    """References inside the file, from outside of it."""
    if isinstance(value, dict):
        return {key: ROOT + inner if key == "$ref" else _absolute(inner) for key, inner in value.items()}
    return [_absolute(inner) for inner in value] if isinstance(value, list) else value


@cache
def _validator(operation: Operation, status: int) -> Draft202012Validator | None:
    answers = spec()["paths"][operation.path][operation.method.lower()]["responses"]
    schema = answers.get(str(status), {}).get("content", {}).get("application/json", {}).get("schema")
    return None if schema is None else Draft202012Validator(_absolute(schema), registry=_registry())


def problems(operation: Operation | None, status: int, body: Any) -> list[str]:
    """What the specification does not allow in an answer; an error's shape is always judged."""
    if status >= 400:
        judge: Draft202012Validator | None = Draft202012Validator(ERROR)
    else:
        judge = None if operation is None else _validator(operation, status)
    if judge is None:
        return []
    return [f"{'.'.join(map(str, error.absolute_path)) or 'body'}: {error.message[:200]}" for error in judge.iter_errors(body)]


def fields(operation: Operation) -> dict[str, Any]:
    """The fields of an operation's JSON or form body, each with its schema; empty without a body."""
    content = spec()["paths"][operation.path][operation.method.lower()].get("requestBody", {}).get("content", {})
    kinds = [kind for kind in ("application/json", "multipart/form-data") if kind in content]
    return _properties(content[kinds[0]]["schema"]) if kinds else {}


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _properties(resolve(schema["$ref"]))
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        found |= _properties(part)
    return found


def resolve(reference: str) -> dict[str, Any]:
    kind, name = reference.removeprefix("#/components/").split("/")
    schema: dict[str, Any] = spec()["components"][kind][name]
    return schema
