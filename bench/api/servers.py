"""Starts what is measured, each as a process of its own on loopback: the mock engine, our gateway, LiteLLM's proxy."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.api.load import Server

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
LIMITS = ("requests_per_minute=100000000", "tokens_per_minute=100000000000", "tokens_per_month=100000000000000")
"""So wide that nothing is refused; all of them are counted for every question."""


class NotStarted(Exception):
    """A server did not answer in time; the end of its log says why."""


@contextmanager
def process(command: list[str], log: Path, port: int, path: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until the end of the block; it answers GET `path` when the block begins. Raises NotStarted."""
    with open(log, "ab") as out:
        env = os.environ | {"PYTHONPATH": str(ROOT), "NO_PROXY": "*"} | environment
        started = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent, env=env, start_new_session=True)
    try:
        _until_ready(started, log, port, path)
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _until_ready(started: subprocess.Popen[bytes], log: Path, port: int, path: str) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            if started.poll() is not None or time.monotonic() > until:
                raise NotStarted(f"{log.name}: {log.read_text(errors='replace')[-1500:]}") from None
            time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def mock_engine(folder: Path, *, first_ms: float = 0.0, token_ms: float = 0.0, slots: int = 0) -> Iterator[Server]:
    port = free_port()
    delays = ["--first-ms", str(first_ms), "--token-ms", str(token_ms), "--slots", str(slots)]
    command = [sys.executable, "-m", "bench.api.mock_engine", "--port", str(port), *delays]
    with process(command, folder / "mock.log", port, "/v1/models") as started:
        yield Server("direct", f"http://127.0.0.1:{port}", pid=started.pid)


@contextmanager
def gateway(folder: Path, engine: Server) -> Iterator[Server]:
    """`tunesmith serve` before the engine, with a key whose limits and usage are counted."""
    port, data = free_port(), folder / f"data-{secrets.token_hex(4)}"
    program = [sys.executable, "-m", "tunesmith"]
    command = [*program, "serve", "--port", str(port), "--data-dir", str(data), "--engine", "openai", "--upstream", engine.url]
    with process(command, folder / "gateway.log", port, "/") as started:  # /health answers before the rest
        limits = [word for limit in LIMITS for word in ("--limit", limit)]
        made = subprocess.run(
            [*program, "keys", "create", "bench", *limits, "--data-dir", str(data), "--json"],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        _until_ready(started, folder / "gateway.log", port, "/health")
        yield Server("ours", f"http://127.0.0.1:{port}", json.loads(made.stdout)["key"], started.pid)


@contextmanager
def litellm(folder: Path, engine: Server, python: Path) -> Iterator[Server]:
    """LiteLLM's proxy with one worker and its master key: without a database it counts no usage, which is to its advantage."""
    port, key = free_port(), "sk-bench"
    config = folder / "litellm.yaml"
    config.write_text(f"""model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "{engine.url}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false, drop_params: false}}
""")
    address = ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    command = [str(python.parent / "litellm"), "--config", str(config), *address]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
    with process(command, folder / "litellm.log", port, "/health/liveliness", **environment) as started:
        yield Server("litellm", f"http://127.0.0.1:{port}", key, started.pid)
