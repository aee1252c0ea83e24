"""Cuts the part that Tunesmith speaks out of OpenAI's specification: python scripts/cut_openai_spec.py openai-openapi.yaml

The specification (github.com/openai/openai-openapi, MIT) is 3 MB of YAML; tests need the operations of our surface and the
schemas that these name, without the prose: tests/api/openai-spec.json.gz.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

RESOURCES = (
    "batches", "chat/completions", "completions", "embeddings", "evals", "files", "fine_tuning", "models", "moderations",
    "responses", "uploads",
)
PROSE = {"description", "x-oaiMeta", "example", "examples", "title", "summary", "x-oaiTypeLabel", "externalDocs"}
OUT = Path(__file__).parents[1] / "tests" / "api" / "openai-spec.json.gz"


def is_ours(path: str) -> bool:
    return "?" not in path and any(path == f"/{name}" or path.startswith(f"/{name}/") for name in RESOURCES)


def without_prose(value: Any, *, are_names: bool = False) -> Any:
    """`are_names`: the keys of this object are names of fields or schemas, and none is prose."""
    if isinstance(value, dict):
        return {
            key: without_prose(inner, are_names=key in {"properties", "schemas"})
            for key, inner in value.items() if are_names or key not in PROSE
        }
    return [without_prose(inner) for inner in value] if isinstance(value, list) else value


def named(value: Any) -> set[str]:
    """Every `$ref` inside."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(named(inner) for inner in value.values()))
    return set().union(*(named(inner) for inner in value)) if isinstance(value, list) else set()


def cut(whole: dict[str, Any]) -> dict[str, Any]:
    paths = {path: without_prose(methods) for path, methods in whole["paths"].items() if is_ours(path)}
    components: dict[str, dict[str, Any]] = {}
    left, seen = named(paths), set()
    while left:
        reference = left.pop()
        seen.add(reference)
        kind, name = reference.removeprefix("#/components/").split("/")
        components.setdefault(kind, {})[name] = found = without_prose(whole["components"][kind][name])
        left |= named(found) - seen
    return {"openapi": whole["openapi"], "info": {"title": "OpenAI API", "license": "MIT", "version": whole["info"]["version"]},
            "paths": paths, "components": {kind: dict(sorted(found.items())) for kind, found in components.items()}}


def main() -> None:
    whole = yaml.safe_load(Path(sys.argv[1]).read_text())
    data = json.dumps(cut(whole), separators=(",", ":")).encode()
    OUT.write_bytes(gzip.compress(data, mtime=0))
    print(f"{OUT}: {len(data)} bytes, {OUT.stat().st_size} compressed")


if __name__ == "__main__":
    main()
