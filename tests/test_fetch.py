"""The one fetcher: no address of this machine or its networks is asked, however it is written, and no redirect is followed."""

import ipaddress
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from tunesmith import fetch
from tunesmith.errors import InvalidRequest

PRIVATE = [
    "https://127.0.0.1/", "https://0.0.0.0/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/", "https://[::127.0.0.1]/", "https://[fec0::1]/", "https://100.64.0.1/", "https://169.254.169.254/",
    "https://[fd00:ec2::254]/", "https://metadata.google.internal/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/",
    "https://localhost/", "https://localhost./", "https://a.localhost/", "https://10.0.0.1/", "https://192.168.1.1:8443/x",
    "https://224.0.0.1/", "https://[ff02::1]/", "https://[fe80::1]/",
]  # fmt: skip
BAD = [
    "http://example.com/", "ftp://example.com/", "https://", "https://user@example.com/", "https://a:b@example.com/",
    "https://allowed.com\\@127.0.0.1/", "https://exa mple.com/", "https://example.com:99999/", "https://example.com:0/",
    "https://[fe80::1%25eth0]/", "https://bücher.example/", "//example.com", "https://example.com/\nx",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE + BAD)
def test_what_may_not_be_asked_is_refused_without_a_packet(url, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a packet was sent"))
    with pytest.raises(InvalidRequest) as caught:
        fetch.post(url, b"", {}, allow_private=False)
    assert (caught.value.code, caught.value.param) == ("url_not_allowed", "url")


def test_a_name_that_means_a_private_address_is_refused_and_asked_once_only(monkeypatch):
    """A name server that says something harmless first and 127.0.0.1 after that finds no second question."""
    asked = []

    def resolve(host, port, *args, flags=0, **kwargs):
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (("93.184.216.34", "127.0.0.1")[len(asked) > 1], port))]

    went = []

    def refuse():
        raise OSError("off")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: went.append(address) or refuse())
    with pytest.raises(InvalidRequest, match="does not answer"):
        fetch.post("https://rebinding.example/", b"", {}, allow_private=False)
    assert (asked, went) == (["rebinding.example"], [("93.184.216.34", 443)])
    with pytest.raises(InvalidRequest, match="private"):
        fetch.post("https://rebinding.example/", b"", {}, allow_private=False)
    assert len(went) == 1


def test_public_addresses_are_public():
    for text in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"):
        assert fetch.is_public(ipaddress.ip_address(text))


@contextmanager
def answering(*answer, gap=0.0):
    """A server that says the same to everybody, piece by piece, and keeps what it was told."""
    told = []

    def serve(listening):
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            with link:
                told.append(link.recv(65536))
                for piece in answer:
                    try:
                        link.sendall(piece)
                    except OSError:
                        break
                    time.sleep(gap)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=[listening])
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/hook?a=b", told
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_redirect_is_an_answer_and_not_followed():
    with answering(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n") as (url, told):
        assert fetch.post(url, b"body", {"x-mine": "1"}, allow_private=True) == 302
    assert len(told) == 1
    assert told[0].startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    assert b"x-mine: 1" in told[0]


def test_a_receiver_that_never_comes_to_an_end_is_left():
    with answering(*[b"H"] * 20, gap=0.1) as (url, _), pytest.raises(InvalidRequest, match="does not answer"):
        fetch.post(url, b"", {}, allow_private=True, seconds=0.3)
