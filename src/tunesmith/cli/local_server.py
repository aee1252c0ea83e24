"""A `tunesmith serve` of one's own: a child process on a free port of loopback, with a key that ends with it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import openai

from tunesmith.cli.remote import passing_key
from tunesmith.errors import TunesmithError

START_SECONDS = 120


class LocalServer:
    """Use it with `with`, or call `stop`. `base_url` and `api_key` are what the openai client wants.

    The process dies with its parent, also when the parent is killed. Raises TunesmithError with the end of the server's log
    when it does not start.
    """

    def __init__(self, data_dir: Path | str = ".tunesmith", *, bases: tuple[str, ...] = ()):
        self.data_dir = Path(data_dir)
        self.log = self.data_dir / "logs" / "local-server.log"
        self.port = _free_port()
        self._things = ExitStack()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        chosen = [part for base in bases for part in ("--base", base)]
        command = [sys.executable, "-m", "tunesmith", "serve", "--port", str(self.port), "--data-dir", str(data_dir)]
        with open(self.log, "w") as output:
            self._process = subprocess.Popen(
                [*command, *chosen, "--exit-with-parent"],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._things.callback(self._end_process)
        try:
            self.api_key = self._things.enter_context(passing_key(self.data_dir, "local-server"))
            self.client = openai.OpenAI(base_url=self.base_url, api_key=self.api_key, max_retries=5, timeout=600)
            self._things.callback(self.client.close)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        """Revokes the key and ends the process; may be called twice."""
        self._things.close()

    def __enter__(self) -> "LocalServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = self.log.read_text()[-400:].strip()
                raise TunesmithError(f"The server stopped: {said}", hint=f"Its log is {self.log}.")
            try:
                self.client.with_options(max_retries=0).models.list()
                return
            except (openai.APIConnectionError, openai.InternalServerError):
                # Nobody listens yet, or the server has not imported all of itself: 503.
                time.sleep(0.1)
        raise TunesmithError(f"The server did not answer within {START_SECONDS} s.", hint=f"Its log is {self.log}.")

    def _end_process(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
