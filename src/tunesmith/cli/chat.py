"""`tunesmith chat`: a conversation with a served model, streamed. A client of the HTTP API like any other."""

import sys
from pathlib import Path
from typing import Any

import openai
import typer

from tunesmith.cli.remote import connect
from tunesmith.settings import DEFAULT_BASE

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def chat(
    question: str = typer.Argument(None, help="Ask this and stop; without it, lines are read until the end of input."),
    model: str = typer.Option(DEFAULT_BASE, help="Id of a base or fine-tuned model; see `tunesmith models list`."),
    system: str = typer.Option(None, help="A system message."),
    temperature: float = typer.Option(0.0, help="0 is greedy."),
    max_tokens: int = typer.Option(256, help="Longest answer."),
    url: str = typer.Option(None, help="The server [default: $OPENAI_BASE_URL or http://127.0.0.1:8040/v1]."),
    key: str = typer.Option(None, help="API key [default: $OPENAI_API_KEY, or one made for this chat in --data-dir]."),
    data_dir: Path = typer.Option(Path(".tunesmith"), help="The server's folder, to make a key in."),
) -> None:
    """Talk to a served model."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    with connect(url, key, data_dir) as client:
        for line in [question] if question else lines():
            messages.append({"role": "user", "content": line})
            answer = stream(client, model, messages, temperature, max_tokens)
            messages.append({"role": "assistant", "content": answer})


def lines() -> Any:
    """What the user types, or what stdin holds; blank lines are passed over."""
    interactive = sys.stdin.isatty()
    if interactive:
        print("Type a message; Ctrl-D ends the chat.")
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return
        if line.strip():
            yield line


def stream(client: openai.OpenAI, model: str, messages: list[Any], temperature: float, max_tokens: int) -> str:
    said = ""
    chunks = client.chat.completions.create(
        model=model, messages=messages, temperature=temperature, max_tokens=max_tokens, stream=True
    )
    for chunk in chunks:
        delta = chunk.choices[0].delta if chunk.choices else None
        text = (delta.content if delta else None) or ""
        for call in (delta.tool_calls if delta else None) or []:
            text += f"[{call.function.name if call.function else ''} {call.function.arguments if call.function else ''}]"
        said += text
        print(text, end="", flush=True)
    print()
    return said
