"""Answers while the base is being loaded: `/health` tells how far it is, everything else is asked to wait. Imports no torch.

The listening socket outlives this: connections that come while the real server takes over wait in the socket's queue.
"""

import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tunesmith.errors import Busy

STAGES = ("imports", "weights", "check", "warm-up")
"""What a start goes through, in this order."""
RETRY_SECONDS = 2


@dataclass
class Progress:
    """How far a start is; written by the loading thread, read by the event loop."""

    base: str
    stage: str = STAGES[0]
    started_at: float = field(default_factory=time.monotonic)

    def reach(self, stage: str) -> None:
        self.stage = stage

    def body(self) -> dict[str, object]:
        """`progress` counts the stages that are done, from 0 to 1; weights of a large base take most of the time."""
        return {
            "status": "loading",
            "base": self.base,
            "stage": self.stage,
            "progress": STAGES.index(self.stage) / len(STAGES),
            "seconds": round(time.monotonic() - self.started_at, 2),
        }


def loading_app(progress: Progress) -> web.Application:
    """503 to everything, in OpenAI's shape; `/health` has the stage."""

    async def answer(request: web.Request) -> web.Response:
        wait = {"Retry-After": str(RETRY_SECONDS)}
        if request.path == "/health":
            return web.json_response(progress.body(), status=503, headers=wait)
        error = Busy(f"The engine is loading {progress.base}.", hint="Ask again in some seconds.", code="engine_loading")
        body = {"message": str(error), "type": "server_error", "param": None, "code": error.code}
        return web.json_response({"error": body}, status=503, headers=wait)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


def listen(where: Path | int) -> socket.socket:
    """A listening socket: of a path, or of a port of 127.0.0.1 (0 takes a free one). Raises OSError."""
    made = socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if isinstance(where, Path):
            made.bind(str(where))
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("127.0.0.1", where))
        made.listen(128)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made
