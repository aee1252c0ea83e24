"""Writes the table of fields in docs/recipes.md, between its two markers, from the recipe's own classes. A test compares the two.

    python scripts/write_recipe_docs.py         rewrites what stands between the markers
"""

import ast
import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunesmith.recipes.run import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
BEGIN = "<!-- fields: written by scripts/write_recipe_docs.py -->"
END = "<!-- end of fields -->"
LIMITS = {"minimum": "at least {}", "exclusiveMinimum": "over {}", "maximum": "at most {}", "exclusiveMaximum": "under {}",
          "minLength": "at least {} characters", "maxLength": "at most {} characters", "pattern": "matching `{}`"}
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "none"}


def docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """Field -> the string under it."""
    body = ast.parse(inspect.getsource(cls)).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(after.value.value).split())
    return found


def kind(schema: dict[str, Any]) -> str:
    """A field's type and limits in words."""
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return ", or ".join(kind(each) for each in schema["anyOf"])
    if schema["type"] == "array":
        return f"list of {kind(schema['items'])}"
    if schema["type"] == "object":
        return f"table of {kind(schema['additionalProperties'])}"
    limits = [words.format(schema[name]) for name, words in LIMITS.items() if name in schema and schema[name] != ""]
    return ", ".join([WORDS[schema["type"]], *limits])


def rows(cls: type[BaseModel]) -> list[tuple[str, dict[str, Any], str]]:
    """(field, JSON schema, docstring) of the fields that are no tables themselves."""
    strings, schema = docstrings(cls), cls.model_json_schema()
    return [(name, each, strings[name]) for name, each in schema["properties"].items() if "$ref" not in each]


def shown(default: Any) -> str:
    return "none" if default is None else f"`{json.dumps(default)}`"


def section(cls: type[BaseModel], path: str) -> list[str]:
    """The table of one class, and those of the tables in it."""
    title = f"`[{path}]`" if path else "The recipe itself"
    first_line = (inspect.getdoc(cls) or "").splitlines()[0]
    lines = [f"### {title}", "", first_line, "", "| field | is | default | |", "|---|---|---|---|"]
    required = cls.model_json_schema().get("required", [])
    for name, schema, text in rows(cls):
        default = "required" if name in required else shown(schema.get("default"))
        cells = (f"`{name}`", kind(schema), default, text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines.append("")
    for name, field in cls.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            lines += section(field.annotation, f"{path}.{name}".lstrip("."))
    return lines


def fields() -> str:
    return "\n".join([BEGIN, "", *section(Recipe, ""), END])


def page() -> str:
    """The page with fresh tables; they stand at its end if it has no markers yet."""
    text = PAGE.read_text() if PAGE.exists() else "# Recipes\n"
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n## Every field\n\n{fields()}\n"
    before, rest = text.split(BEGIN, 1)
    return before + fields() + rest.split(END, 1)[1]


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
