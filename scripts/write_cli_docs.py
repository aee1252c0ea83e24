"""Writes docs/cli.md: the `--help` of every verb, as the command prints it. A test compares the two.

    python scripts/write_cli_docs.py            writes the page
"""

import importlib
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.testing import CliRunner

from tunesmith.cli.main import VERBS, app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The `tunesmith` command

Written by `scripts/write_cli_docs.py` from what `--help` prints; a test compares the two.

All verbs that report have `--json`. An error is one sentence and a next step on stderr, with exit status 1.
"""


def verbs() -> Iterator[tuple[str, ...]]:
    """() for the command itself, then each verb, then its own verbs."""
    yield ()
    for verb, (module, _) in VERBS.items():
        yield (verb,)
        command = typer.main.get_command(importlib.import_module(f"tunesmith.cli.{module}").app)
        for name in getattr(command, "commands", {}):
            yield (verb, name)


def page() -> str:
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    parts = [HEAD]
    for words in verbs():
        result = runner.invoke(app, [*words, "--help"], prog_name="tunesmith", terminal_width=100, catch_exceptions=False)
        if result.exit_code:
            raise SystemExit(f"tunesmith {' '.join(words)} --help failed: {result.output}")
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        parts.append(f"{'#' * (2 + (len(words) == 2))} `{' '.join(('tunesmith', *words))}`\n\n```\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
