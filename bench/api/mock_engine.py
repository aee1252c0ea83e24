"""An engine with fixed delays that speaks OpenAI's protocol and computes nothing: what is measured through it is the way there.

    python -m bench.api.mock_engine --port 9000 --first-ms 0 --token-ms 333 --slots 32

Each token is the time at which it was sent, in seconds since 1970: a reader on the same machine sees how long it travelled.
With `--slots`, what comes while all are taken is refused at once with 429, as an engine does whose queue is full.
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

MODEL = "mock"
MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass
class Engine:
    """`first` and `token` are seconds before the first and between tokens; 0 for `slots` means any number at once."""

    first: float = 0.0
    token: float = 0.0
    slots: int = 0
    in_flight: int = 0
    answered: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.slots and self.in_flight >= self.slots:
            error = {"message": "All slots are taken.", "type": "server_error", "param": None, "code": "engine_overloaded"}
            return web.json_response({"error": error}, status=429, headers={"Retry-After": "1"})
        self.in_flight += 1
        try:
            return await (self._stream(request, body) if body.get("stream") else self._whole(body))
        finally:
            self.in_flight -= 1
            self.answered += 1

    async def _whole(self, body: dict[str, Any]) -> web.Response:
        count = _num_tokens(body)
        await asyncio.sleep(self.first + self.token * (count - 1))
        message = {"role": "assistant", "content": " ".join([_now()] * count), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": None}
        return web.json_response(_head("chat.completion") | {"choices": [choice], "usage": _usage(count)})

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        clock, count = asyncio.get_running_loop().time, _num_tokens(body)
        due, head = clock() + self.first, _head("chat.completion.chunk")
        for index in range(count):
            await asyncio.sleep(max(0.0, due - clock()))
            due += self.token
            reason = "length" if index == count - 1 else None
            choice = {"index": 0, "delta": {"content": _now() + " "}, "finish_reason": reason, "logprobs": None}
            await response.write(_event(head | {"choices": [choice]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(_event(head | {"choices": [], "usage": _usage(count)}))
        await response.write(b"data: [DONE]\n\n")
        return response


def _num_tokens(body: dict[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)


def _now() -> str:
    return f"{time.time():.6f}"


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-mock", "object": kind, "created": int(time.time()), "model": MODEL}


def _usage(count: int) -> dict[str, Any]:
    return {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": 10 + count}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def _models(request: web.Request) -> web.Response:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}
    return web.json_response({"object": "list", "data": [model]})


def make_app(engine: Engine) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", engine.answer)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api.mock_engine", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--first-ms", type=float, default=0.0)
    parser.add_argument("--token-ms", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=0)
    args = parser.parse_args()
    engine = Engine(args.first_ms / 1000, args.token_ms / 1000, args.slots)
    web.run_app(make_app(engine), host="127.0.0.1", port=args.port, print=None, access_log=None, backlog=2048)


if __name__ == "__main__":
    main()
