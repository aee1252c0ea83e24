"""The `tunesmith` command: a table of verbs, each imported only when it is called, so that `--help` is quick."""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from tunesmith.errors import TunesmithError

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Fine-tune the built-in model, prove that it got better, serve it and chat with it."),
    "serve": ("serve", "Serve the OpenAI-compatible API."),
    "train": ("train", "Run a recipe here, without a server."),
    "eval": ("eval", "Measure a model: a base's skills, or an adapter on rows of a file."),
    "chat": ("chat", "Talk to a served model."),
    "data": ("data", "Look at training data: check."),
    "jobs": ("jobs", "Fine-tuning jobs: list, show, cancel, logs."),
    "models": ("models", "Models: list, show, pull, add, remove."),
    "keys": ("keys", "API keys: create, list, revoke."),
    "doctor": ("doctor", "What this machine can do, and what follows."),
}
"""Verb -> (module of tunesmith.cli that has it as `app`, one line of help)."""


class LazyGroup(TyperGroup):
    """Lists verbs from the table; imports a verb's module when the verb is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        if ctx.protected_args_and_verb_known is False:
            return None
        module, _ = VERBS[cmd_name]
        return typer.main.get_command(importlib.import_module(f"tunesmith.cli.{module}").app)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False)


def main() -> None:
    """Runs a verb; an error that we know becomes one sentence and a next step on stderr, with exit status 1."""
    try:
        app()
    except TunesmithError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        raise SystemExit(130) from None
