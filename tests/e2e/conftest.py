"""A real server: `tunesmith serve` as a process, on a free port, with a key of its own."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest


@dataclass
class Server:
    process: subprocess.Popen
    port: int
    data_dir: Path
    key: str
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, **kwargs) -> openai.OpenAI:
        self.clients.append(openai.OpenAI(base_url=self.url, **{"api_key": self.key, "timeout": 300, **kwargs}))
        return self.clients[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*arguments, **kwargs) -> subprocess.CompletedProcess:
    """One `tunesmith` command, to its end."""
    return subprocess.run([sys.executable, "-m", "tunesmith", *map(str, arguments)], capture_output=True, text=True, **kwargs)


def start(data_dir: Path, *flags: str) -> Server:
    port = free_port()
    log = data_dir.parent / f"{data_dir.name}.log"
    with open(log, "a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith", "serve", "--port", str(port), "--data-dir", str(data_dir), *flags],
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read()
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code == 401:
                    break  # the desk itself: while it loads, all but /health is 503
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise AssertionError(log.read_text()[-3000:]) from None
            time.sleep(0.1)
    made = run("keys", "create", "test", "--role", "owner", "--data-dir", data_dir, "--json")
    assert made.returncode == 0, made.stderr
    return Server(process, port, data_dir, json.loads(made.stdout)["key"])


def stop(server: Server) -> None:
    for client in server.clients:
        client.close()
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = start(tmp_path_factory.mktemp("served") / "data")
    yield running
    stop(running)
