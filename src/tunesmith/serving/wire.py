"""HTTP/1.1 to one server over connections that are kept: a question's bytes out, an answer's bytes as they come. Knows no routes.

A general client cost more than all else that the desk does for a question. This one writes head and body at once, reads with the
C parser that the server's own side uses, and hands bytes on as they are. It follows no redirect, for an engine that sends us
elsewhere is not the one that was named; it keeps no cookie and asks for no compression. Whatever ends a connection is an OSError.
"""

import asyncio
import base64
import ssl
import time
from pathlib import Path
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit

import httptools

CONNECT_SECONDS = 10.0
KEEP_SECONDS = 2.0
"""How long an idle connection is used again; less than the engine's patience (uvicorn has 5 s), which would end it under us."""
MAX_WAITING_BYTES = 1 << 18
"""What may wait for a slow reader; then the engine waits, too."""


class Response:
    """One answer. `head` first, then `some` until it gives nothing, or `read`; `close` wherever it is left."""

    def __init__(self, connection: "Connection"):
        self.status = 0
        self.headers: dict[str, str] = {}
        """By name in small letters; of a name that comes twice, the last."""
        self._connection = connection
        self._chunks: list[bytes] = []
        self._num_waiting = 0
        self._has_head = self._is_whole = False
        self._error: OSError | None = None
        self._news: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Until status and headers are here. Raises OSError."""
        while not self._has_head:
            await self._wait()

    async def some(self) -> bytes:
        """What has come since; nothing at the end only. Raises OSError."""
        while not self._chunks and not self._is_whole:
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._num_waiting > MAX_WAITING_BYTES and not self._is_whole:
            self._connection.resume()
        self._num_waiting = 0
        return data

    async def read(self) -> bytes:
        """The rest of it. Raises OSError."""
        data = b""
        while chunk := await self.some():
            data = data + chunk if data else chunk
        return data

    def close(self) -> None:
        """An answer that has not come to its end is broken off, and with it the work on it."""
        if not self._is_whole:
            self._connection.abort()

    def fail(self, error: OSError) -> None:
        """Whoever reads is told so, after what has come; one that is whole stays so."""
        if not self._is_whole:
            self._error = error
            self._tell()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # -- by its connection --------------------------------------------------------------------------------------------

    def begin(self, status: int) -> None:
        self.status, self._has_head = status, True
        self._tell()

    def add(self, data: bytes) -> None:
        self._chunks.append(data)
        self._num_waiting += len(data)
        if self._num_waiting > MAX_WAITING_BYTES:
            self._connection.pause()
        self._tell()

    def end(self) -> None:
        self._is_whole = True
        self._tell()

    @property
    def ends_with_the_connection(self) -> bool:
        chunked = "chunked" in self.headers.get("transfer-encoding", "")
        return self._has_head and not chunked and "content-length" not in self.headers


class Connection(asyncio.Protocol):
    """One connection, one question at a time."""

    def __init__(self, wire: "Wire"):
        self._wire = wire
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._response: Response | None = None
        self._is_paused = False
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def ask(self, data: bytes) -> Response:
        self._response = Response(self)
        self._transport.write(data)
        return self._response

    def abort(self) -> None:
        self._transport.abort()

    def pause(self) -> None:
        if not self._is_paused and self.is_open:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused and self.is_open:
            self._transport.resume_reading()
        self._is_paused = False

    # -- what the transport says --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionError(f"the answer is no HTTP: {error}"))
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._wire.forget(self)
        response = self._response
        if response is not None and response.ends_with_the_connection and error is None:
            response.end()
        self._fail(ConnectionResetError("the connection ended"))

    def _fail(self, error: OSError) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.fail(error)

    # -- what the parser says -----------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is not None:
            self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._response is not None and status >= 200:  # what says that more will come is not the answer
            self._response.begin(status)

    def on_body(self, data: bytes) -> None:
        if self._response is not None:
            self._response.add(data)

    def on_message_complete(self) -> None:
        response = self._response
        if response is None:  # nobody asked
            return self.abort()
        if response.status == 0:
            response.headers.clear()
            return
        self._response = None
        response.end()
        self.resume()
        if self._parser.should_keep_alive() and not response.ends_with_the_connection:
            self._wire.keep(self)
        else:
            self._transport.close()


class Wire:
    """The connections to one server, by a Unix socket or an address. Used from one event loop."""

    def __init__(self, base_url: str, socket: Path | None, key: str):
        self._parts = urlsplit(base_url)
        self._socket = socket
        self._prefix = self._parts.path.rstrip("/")
        self._head = _head(self._parts, key)
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Response:
        """The answer, whose head is here. Raises OSError; one that is cancelled takes the question back."""
        if not path.isascii() or not path.isprintable() or " " in path:
            raise ValueError(f"{path!r} is no path")
        length = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}{length}\r\n".encode("latin-1")
        connection = self._kept() or await self._connect()
        response = connection.ask(head + (body or b""))
        try:
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    def keep(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)

    def _kept(self) -> Connection | None:
        """The one that was used last; all that were idle for too long are closed."""
        oldest = time.monotonic() - KEEP_SECONDS
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.pop(0).abort()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            if self._socket is not None:
                _, connection = await loop.create_unix_connection(lambda: Connection(self), str(self._socket))
            else:
                tls = ssl.create_default_context() if self._parts.scheme == "https" else None
                port = self._parts.port or (443 if tls else 80)
                _, connection = await loop.create_connection(lambda: Connection(self), self._parts.hostname or "", port, ssl=tls)
        self._open.add(connection)
        return connection


def _head(parts: SplitResult, key: str) -> str:
    """The lines that every question has. A key goes before a name and password that stand in the address."""
    lines = [f"Host: {parts.netloc.rpartition('@')[2]}", "Accept: */*", "User-Agent: tunesmith"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    elif parts.username is not None:
        told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(told.encode()).decode()}")
    return "".join(f"{line}\r\n" for line in lines)
