"""An upstream's answer on its way to the client: status, content type and bytes, with the model's name as the client said it.

Knows no upstream. The engine's own name of an adapter never leaves the desk, nor do paths.
"""

import json
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any

from tunesmith.errors import EngineFailed
from tunesmith.serving.wire import Response

EVENTS = "text/event-stream"
PASSED_ON = ("Retry-After",)
"""Headers of an answer that concern the client."""


class Answer:
    """One answer. Whoever has it reads it to the end, or closes it; then `on_end` is called, once."""

    def __init__(self, response: Response, *, names: tuple[str, str] | None = None):
        """`names`: what the engine calls the model, and what the client does."""
        self._response = response
        self._ends: list[Callable[[], None]] = []
        self._first = b""
        self.told = Told(names)
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/json")
        self.headers = {name: response.headers[name.lower()] for name in PASSED_ON if name.lower() in response.headers}

    @property
    def is_stream(self) -> bool:
        return self.content_type.startswith(EVENTS)

    def on_end(self, call: Callable[[], None]) -> None:
        self._ends.append(call)

    async def begin(self) -> None:
        """Waits for the first bytes of a stream, or for the whole of another answer: until then it can be asked again.

        Raises EngineFailed if the engine died meanwhile.
        """
        try:
            self._first = await (self._response.some() if self.is_stream else self._response.read())
        except OSError as error:
            raise _died() from error
        if self.is_stream and not self._first:
            raise _died()

    async def read(self) -> bytes:
        """The whole body. Raises EngineFailed if the engine died meanwhile."""
        try:
            whole = self._first + (await self._response.read() if self.is_stream else b"")
            return whole if self.is_stream else self._named(whole)
        except OSError as error:
            raise _died() from error
        finally:
            self.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, in whole server-sent events; an engine that dies says so in a last event.

        Leaving the iterator early (`aclose`) closes the connection, which aborts the work upstream.
        """
        events = Events()
        try:
            for event in map(self.told.event, events.feed(self._first)):
                if event:
                    yield event
            while chunk := await self._response.some():
                whole = b"".join(map(self.told.event, events.feed(chunk)))
                if whole:
                    yield whole
            for event in map(self.told.event, events.end()):
                if event:
                    yield event
        except OSError:
            yield b"data: " + json.dumps({"error": error_object(_died())}).encode() + b"\n\n"
        finally:
            self.close()

    def _named(self, whole: bytes) -> bytes:
        """Raises EngineFailed for what is no JSON, such as the page of a proxy in between."""
        try:
            return self.told.whole(whole)
        except ValueError as error:
            raise EngineFailed(f"The engine answered {self.status} without JSON.", hint="Look at the engine's log.") from error

    def abort(self) -> None:
        """The engine is gone: whoever reads is told so."""
        self._response.fail(ConnectionResetError("the engine is gone"))

    def close(self) -> None:
        """Ends the connection; an answer that has not come to its end is aborted. May be called twice."""
        self._response.close()
        ends, self._ends = self._ends, []
        for call in ends:
            call()


class Told:
    """What an engine says, in the client's words, and what it has counted.

    `names`: what the engine calls the model, and what the client does; None leaves all as it is and counts nothing.
    """

    def __init__(self, names: tuple[str, str] | None):
        self._names = names
        self._written = () if names is None or names[0] == names[1] else _written(*names)
        self.usage: dict[str, Any] | None = None
        """What the engine counted, once it has said so."""
        self.hides_usage = False
        """Is usage in the events asked for by us, and not by the client?"""
        self.num_events = 0

    def whole(self, data: bytes) -> bytes:
        """An answer that is one JSON value. Raises ValueError for what is none."""
        if self._names is None:
            return data
        body = self._noted(json.loads(data))
        is_same = not self._written and isinstance(body, dict) and "error" not in body
        return data if is_same else _bytes(body)

    def event(self, event: bytes) -> bytes:
        """The event as the client sees it; [DONE] and comments stay as they are, and nothing is left of one that is hidden."""
        if self._names is None or not event.startswith(b"data: {"):
            return event
        self.num_events += 1
        if self.hides_usage:
            event = event.replace(b', "usage": null', b"").replace(b',"usage":null', b"")
        if b'"usage"' not in event and b'"error"' not in event:
            return self._renamed(event)
        body = self._noted(json.loads(event[len(b"data: "):]))
        if self.hides_usage and body.pop("usage", None) and not body.get("choices"):
            return b""
        return b"data: " + _bytes(body) + b"\n\n"

    def _renamed(self, event: bytes) -> bytes:
        """Most events: only the model's name is another. JSON escapes the quotes within a text, so what a model says never looks
        like a member of the object; reading and writing each event again would be most of what a stream costs."""
        for old, new in self._written:
            if old in event:
                return event.replace(old, new, 1)
        return event

    def _noted(self, body: Any) -> Any:
        if not isinstance(body, dict) or self._names is None:
            return body
        if isinstance(body.get("usage"), dict):
            self.usage = body["usage"]
        return rename(body, *self._names)


class Events:
    """Cuts bytes, as they come, into whole server-sent events, each with the empty line that ends it."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes; a part of one waits for the next chunk. Lines may end with CR LF."""
        *whole, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        return [event + b"\n\n" for event in whole]

    def end(self) -> list[bytes]:
        """The last event, when the empty line after it was left out."""
        rest, self._rest = self._rest.strip(), b""
        return [rest + b"\n\n"] if rest else []


def rename(body: dict[str, Any], engine_name: str, name: str) -> dict[str, Any]:
    """The object with `name` as its model; an error speaks of `name` too, and has OpenAI's fields."""
    if body.get("model") == engine_name:
        body["model"] = name
    if isinstance(body.get("error"), dict):
        error = body["error"]
        code = error.get("code")
        message = str(error.get("message", "")).replace(engine_name, name)
        body["error"] = error | {"message": message, "param": error.get("param"), "code": code if isinstance(code, str) else None}
    return body


@lru_cache(maxsize=256)
def _written(engine_name: str, name: str) -> tuple[tuple[bytes, bytes], ...]:
    """How an event says the engine's name, and what it shall say."""
    return tuple((_member(engine_name, space), _member(name, space)) for space in (" ", ""))


def _member(model: str, space: str) -> bytes:
    """`"model": "x"`, as one writer of JSON or another writes it."""
    return f'"model":{space}{json.dumps(model, ensure_ascii=False)}'.encode()


def _bytes(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _died() -> EngineFailed:
    return EngineFailed("The engine stopped while it answered.", hint="Ask again; it is started anew.")


def error_object(error: EngineFailed) -> dict[str, Any]:
    return {"message": str(error), "type": "server_error", "param": None, "code": error.code}
