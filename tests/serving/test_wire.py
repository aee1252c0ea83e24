"""Answers come whole however they are sent, a cut one is never taken for whole, and connections are used while they last."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tunesmith.serving import wire as wire_file
from tunesmith.serving.wire import MAX_WAITING_BYTES, Wire

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers each question by `answer`; counts connections and remembers the last question."""

    def __init__(self, answer: Answering):
        self.answer, self.num_connections, self.asked, self.ended = answer, 0, b"", asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while True:
                self.asked = await reader.readuntil(b"\r\n\r\n")
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answering) -> AsyncIterator[tuple[Server, Wire]]:
    server = Server(answer)
    listening = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    wire = Wire(f"http://127.0.0.1:{port}/prefix", None, "secret")
    yield server, wire
    await wire.close()
    listening.close()
    await listening.wait_closed()


def says(*parts: bytes, ends: bool = False) -> Answering:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if ends:
            writer.close()

    return answer


WHOLE = [
    says(OK + b"Content-Length: 5\r\n\r\nhel", b"lo"),
    says(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n\r\n"),
    says(OK + b"\r\nhel", b"lo", ends=True),
    says(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", OK + b"Content-Length: 5\r\n\r\nhello"),
    says(b"HTTP/1.1 200 ", b"OK\r\nContent-", b"Length: 5\r\n", b"\r\nhello"),
]


@pytest.mark.parametrize("answer", WHOLE)
async def test_an_answer_is_read_whole_however_it_is_sent(answer: Answering) -> None:
    async with serving(answer) as (server, wire):
        for _ in range(2):
            response = await wire.ask("GET", "/x")
            assert (response.status, await response.read()) == (200, b"hello")
        assert server.asked.startswith(b"GET /prefix/x HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer secret\r\n" in server.asked


async def test_a_connection_is_used_again_until_it_was_idle_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says(OK + b"Content-Length: 0\r\n\r\n")) as (server, wire):
        for _ in range(3):
            await (await wire.ask("POST", "/x", b"{}")).read()
        assert server.num_connections == 1
        monkeypatch.setattr(wire_file, "KEEP_SECONDS", -1.0)
        await (await wire.ask("POST", "/x", b"{}")).read()
        assert server.num_connections == 2


CUT = [
    says(OK + b"Content-Length: 9\r\n\r\nhello", ends=True),
    says(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", ends=True),
    says(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"no length\r\n"),
]


@pytest.mark.parametrize("answer", CUT)
async def test_what_came_of_a_cut_answer_is_read_and_then_it_is_an_error(answer: Answering) -> None:
    async with serving(answer) as (_, wire):
        response = await wire.ask("GET", "/x")
        assert await response.some() == b"hello"
        with pytest.raises(OSError):
            await response.some()


@pytest.mark.parametrize("answer", [says(ends=True), says(b"this is no HTTP\r\n\r\n"), says(OK, ends=True)])
async def test_no_answer_is_an_error(answer: Answering) -> None:
    async with serving(answer) as (_, wire):
        with pytest.raises(OSError):
            await wire.ask("GET", "/x")


async def test_a_question_that_is_taken_back_ends_the_connection() -> None:
    async def never(writer: asyncio.StreamWriter) -> None:
        return

    async with serving(never) as (server, wire):
        asking = asyncio.ensure_future(wire.ask("GET", "/x"))
        while not server.asked:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.ended.wait()


async def test_a_slow_reader_makes_the_server_wait_and_loses_nothing() -> None:
    size = 64 * MAX_WAITING_BYTES
    sent = 0

    async def much(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * MAX_WAITING_BYTES)
            await writer.drain()
            sent += MAX_WAITING_BYTES

    async with serving(much) as (_, wire):
        response = await wire.ask("GET", "/x")
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < size, "it waits for the reader"
        assert len(await response.read()) == size


async def test_a_path_that_would_be_another_head_is_refused() -> None:
    async with serving(says(OK + b"Content-Length: 0\r\n\r\n")) as (_, wire):
        for path in ("/x HTTP/1.1\r\nHost: a", "/x y", "/ü"):
            with pytest.raises(ValueError):
                await wire.ask("GET", path)
