"""The `tunesmith` command: a table of verbs, each imported only when it is called, so that `--help` is quick."""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from tunesmith.errors import TunesmithError

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Fine-tune, evaluate, serve and call a model."),
    "serve": ("serve", "Serve the OpenAI-compatible API."),
    "plan": ("plan", "What fits, on which GPUs, how long, how much."),
    "train": ("train", "Run a recipe here, without a server."),
    "eval": ("eval", "Measure a model: its skills, or rows of a file."),
    "evals": ("evals", "Evals of a server: list, show, run, cancel."),
    "chat": ("chat", "Talk to a served model."),
    "data": ("data", "Look at training data: check."),
    "jobs": ("jobs", "Fine-tuning jobs: create, list, show, cancel, logs."),
    "batches": ("batches", "Batches: create, list, show, cancel, output."),
    "verify": ("verify", "Prove that what is served is what was trained."),
    "export": ("export", "Write what was trained for transformers, PEFT, vLLM or Ollama."),
    "models": ("models", "Models: list, show, pull, add, remove."),
    "adapters": ("adapters", "Adapters and aliases: list, show, aliases, alias, unalias."),
    "engines": ("engines", "Engines to serve with: list, install, remove."),
    "projects": ("projects", "Projects: create, list, show, change, archive."),
    "keys": ("keys", "API keys: create, list, show, rotate, revoke."),
    "webhooks": ("webhooks", "Webhooks: create, list, show, change, delete, rotate, test, deliveries."),
    "usage": ("usage", "What was used: requests and tokens."),
    "backup": ("backup", "Copy a server's data to one file, while it serves."),
    "restore": ("restore", "Put a server's data back from one file."),
    "doctor": ("doctor", "What this machine can do, and what follows."),
}
"""Verb -> (module of tunesmith.cli that has it as `app`, one line of help)."""


class LazyGroup(TyperGroup):
    """Lists verbs from the table with their line of help; imports a verb's module only when the verb is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=VERBS[cmd_name][1]) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in VERBS:
            module = importlib.import_module(f"tunesmith.cli.{VERBS[name][0]}")
            command = typer.main.get_command(module.app)
        return name, command, rest


# Markup off: rich's help pages cost 0.2 s of every `--help`.
app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def root() -> None:
    """Fine-tune, evaluate and serve open models on your own machines."""


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
