"""What the scripts share: the client, which reads address and key from the environment, and waiting. Runs under every version."""

import time
from collections.abc import Callable
from typing import TypeVar

import openai

MODEL = "gpt-4o-mini-2024-07-18"
"""The name that scripts written for OpenAI have in them; the server knows it as an alias."""
SECONDS = 240.0

T = TypeVar("T")


def client() -> openai.OpenAI:
    return openai.OpenAI(max_retries=2, timeout=120)


def until(look: Callable[[], T], done: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + SECONDS
    while not done(found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"It is still: {found}")
        time.sleep(0.2)
    return found
