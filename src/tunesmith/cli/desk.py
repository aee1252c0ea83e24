"""A running server, seen from its own machine: an answer to /health while it loads, and the note that says where it is.

    <data dir>/desk.json   {"url", "pid"} while a server runs on this data directory
"""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tunesmith.paths import DataDir

LOADING = json.dumps({"status": "loading", "engines": []}).encode()
BUSY = json.dumps({"error": {
    "message": "The server is starting. Ask again in a second.", "type": "server_error", "param": None, "code": "server_starting",
}}).encode()


class _Loading(BaseHTTPRequestHandler):
    """`/health` says `loading`; everything else is asked to come again."""

    def do_GET(self) -> None:
        is_health = self.path == "/health"
        body = LOADING if is_health else BUSY
        self.send_response(200 if is_health else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        if not is_health:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the server's own log begins later."""


@contextmanager
def answering_while_loading(listening: socket.socket) -> Iterator[None]:
    """Answers on the socket while the body imports what a server needs; who connects at the end is answered by the server."""
    server = ThreadingHTTPServer(("", 0), _Loading, bind_and_activate=False)
    server.socket.close()
    server.socket = listening.dup()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def telling_where(dirs: DataDir, url: str) -> Iterator[None]:
    """Writes the note, and takes it away at the end."""
    dirs.desk.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    try:
        yield
    finally:
        dirs.desk.unlink(missing_ok=True)


def running_desk(dirs: DataDir) -> str | None:
    """The address, with /v1, of the server that runs on this data directory; None when there is none."""
    try:
        note = json.loads(dirs.desk.read_text())
        os.kill(note["pid"], 0)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return f"{note['url']}/v1"
