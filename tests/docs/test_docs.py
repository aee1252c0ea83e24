"""Docs that fail when they lie: the command's help, the recipe's fields, links, and the commands that pages show."""

import ast
import importlib
import inspect
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from tunesmith.cli.main import VERBS
from tunesmith.recipes import adapter, checkpoints, compute, data, evaluation, method, run, tracking

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\$ )?(?:\S*/)?tunesmith ((?:[a-z]+|--)\b.*)$", re.MULTILINE)

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    """The contents of a page's fenced blocks of one language; `` for those without."""
    return [code for name, code in FENCE.findall(text) if name == language]


def running_blocks(text: str) -> list[str]:
    """The fenced Python blocks that a page marks with `<!-- runs -->` on the line before: a test must run them as they stand."""
    return [code for name, code in FENCE.findall(text.replace("<!-- runs -->\n```python", "```runs")) if name == "runs"]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def script(name: str) -> dict[str, object]:
    return runpy.run_path(str(ROOT / "scripts" / name))


# -- pages that are written from the source ---------------------------------------------------------------------------------


def test_the_page_of_the_command_is_what_help_prints() -> None:
    made = script("write_cli_docs.py")
    assert (ROOT / "docs" / "cli.md").read_text() == made["page"](), "run scripts/write_cli_docs.py"


def test_help_has_no_flag_that_is_not_ours_and_no_drawing() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert "--install-completion" not in text
    assert "╭" not in text, "rich's help swallows [default: ...] and is slow to start"
    assert " ." not in re.sub(r" \.\w", "", text), "a help text lost its default"


RECIPE = (adapter, checkpoints, compute, data, evaluation, method, run, tracking)
"""Modules with the classes that a recipe is made of."""


@pytest.mark.parametrize("module", RECIPE, ids=lambda module: module.__name__.rsplit(".", 1)[1])
def test_every_field_of_a_recipe_has_a_string_under_it(module: object) -> None:
    bare = []
    for cls in (node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)):
        for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            is_string = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and not is_string:
                bare.append(f"{cls.name}.{ast.unparse(field.target)}")
    assert bare == []


def test_every_class_of_a_recipe_is_reached_by_the_test_above() -> None:
    def classes(cls: type[BaseModel]) -> set[type]:
        parts = [f.annotation for f in cls.model_fields.values() if inspect.isclass(f.annotation)]
        return {cls}.union(*(classes(part) for part in parts if issubclass(part, BaseModel)))

    assert {cls.__module__ for cls in classes(run.Recipe)} <= {m.__name__ for m in RECIPE}


# -- what pages say ---------------------------------------------------------------------------------------------------------


@page
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = [target.split("#")[0] for target in LINK.findall(prose(page.read_text())) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@page
def test_python_in_pages_is_python(page: Path) -> None:
    for code in blocks(page.read_text().replace("<!-- runs -->\n", ""), "python"):
        ast.parse(code)


@page
def test_commands_in_pages_exist_with_their_flags(page: Path) -> None:
    text = page.read_text()
    if page.name == "cli.md":
        return  # written from the source, and tested above
    shown = [line for language in ("", "sh", "bash", "console", "shell") for code in blocks(text, language)
             for line in COMMAND.findall(code.replace("\\\n", " "))]
    assert [problem for line in shown for problem in wrong_words(line)] == []


def wrong_words(line: str) -> list[str]:
    """What a command line names that the command does not have."""
    words = [word for word in shlex.split(line, comments=True) if word]
    verb, rest = words[0], words[1:]
    if verb.startswith("-"):
        return []
    if verb not in VERBS:
        return [f"tunesmith {verb}"]
    command = typer.main.get_command(importlib.import_module(f"tunesmith.cli.{VERBS[verb][0]}").app)
    commands = getattr(command, "commands", None)
    if commands is not None:
        if not rest or rest[0] not in commands:
            return [] if rest[:1] == ["--help"] else [f"tunesmith {' '.join(words[:2])}"]
        command = commands[rest[0]]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return [f"tunesmith {line}: {word}" for word in rest if word.startswith("--") and word.split("=")[0] not in known]


def test_the_readme_has_python_that_is_run() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(running_blocks(readme)) >= 1
    assert all("openai" in code.lower() for code in running_blocks(readme)[:1])


def test_every_page_is_reached_from_the_table_of_contents() -> None:
    contents = (ROOT / "docs" / "README.md").read_text()
    decisions = (ROOT / "docs" / "decisions" / "README.md").read_text()
    linked = {(ROOT / "docs" / target).resolve() for target in LINK.findall(contents)}
    linked |= {(ROOT / "docs" / "decisions" / target).resolve() for target in LINK.findall(decisions)}
    lost = [path.name for path in (ROOT / "docs").rglob("*.md") if path.resolve() not in linked and path.name != "README.md"]
    assert lost == []


def test_pages_name_no_secret_and_no_path_of_a_workplace() -> None:
    patterns = re.compile(r"/work/|/tmp/w/|sk-[A-Za-z0-9]{20}|hf_[A-Za-z0-9]{20}")
    assert [path.name for path in PAGES if patterns.search(path.read_text())] == []
