"""What verbs share that talk to a running server: where it is, and a key for it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai

from tunesmith.errors import TunesmithError

DEFAULT_URL = "http://127.0.0.1:8040/v1"


def run_verb(noun: str, verb: str, name: str, data_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """`tunesmith NOUN VERB NAME --data-dir D --json` in a process of its own."""
    command = [sys.executable, "-m", "tunesmith", noun, verb, name, *flags, "--data-dir", str(data_dir), "--json"]
    return subprocess.run(command, capture_output=True, text=True)


@contextmanager
def passing_key(data_dir: Path, name: str) -> Iterator[str]:
    """A key that is revoked at the end, for a verb on the server's own machine. Raises TunesmithError if none can be made."""
    made = run_verb("keys", "create", name, data_dir, "--role", "owner")
    if made.returncode:
        raise TunesmithError(f"No key could be made in {data_dir}: {made.stderr.strip()}", hint="Pass one with --key.")
    key = json.loads(made.stdout)
    try:
        yield key["key"]
    finally:
        run_verb("keys", "revoke", key["id"], data_dir)


@contextmanager
def connect(url: str | None, key: str | None, data_dir: Path) -> Iterator[openai.OpenAI]:
    """A client of the server at `url`; without a key (flag or OPENAI_API_KEY) a passing one is made in `data_dir`."""
    url = url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    key = key or os.environ.get("OPENAI_API_KEY")
    try:
        if key:
            with openai.OpenAI(base_url=url, api_key=key) as client:
                yield client
        else:
            with passing_key(data_dir, "command-line") as made, openai.OpenAI(base_url=url, api_key=made) as client:
                yield client
    except openai.APIConnectionError as error:
        raise TunesmithError(f"No server answers at {url}.", hint="Start one with `tunesmith serve`.") from error
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        raise TunesmithError(str(body.get("message") or error.message)) from error
