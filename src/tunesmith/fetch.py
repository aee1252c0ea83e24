"""The one way to an address that a client named: what may be reached, and a request to it. Knows nothing of what is sent, or why.

A name is resolved once; every address that it has must be a public one, and the connection goes to an address that was looked at:
a name that means another machine a moment later gains nothing. Redirects are not followed.
"""

import ipaddress
import socket
import ssl
import threading
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

from tunesmith.errors import InvalidRequest

SECONDS = 10.0
"""For one request, from the first packet to the answer's status."""
MAX_URL = 2048
NAT64 = ipaddress.ip_network("64:ff9b::/96")
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Place(NamedTuple):
    """What a URL names."""

    is_tls: bool
    host: str
    port: int
    path: str


def parse(url: str, *, allow_private: bool, param: str = "url") -> Place:
    """Raises InvalidRequest for what is no URL that may be asked, as far as it can be told without asking anybody."""
    place = _place(url, param)
    if not place.is_tls and not allow_private:
        raise _refused("must be an https:// URL", param)
    if not allow_private:
        is_named_local = place.host.rstrip(".").lower().endswith(("localhost", ".internal", ".local"))
        if is_named_local or any(not is_public(ip) for ip in _literal(place)):
            raise _refused("names a private address", param)
    return place


def _place(url: str, param: str) -> Place:
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or any(letter in url for letter in "\\ <>\"'"):
        raise _refused("is not a plain URL", param)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused("is not a URL", param) from error
    if "%" in parts.netloc:
        raise _refused("must not have a % in its host", param)
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise _refused("must be an https:// URL with a host", param)
    if parts.username is not None or parts.password is not None:
        raise _refused("must not hold a user or a password", param)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 80), path)


def _refused(why: str, param: str) -> InvalidRequest:
    hint = "Private addresses are allowed by `tunesmith serve --allow-private-webhooks`."
    return InvalidRequest(f"{param} {why}.", hint=hint if "private" in why or "https" in why else "", param=param,
                          code="url_not_allowed")  # fmt: skip


def _literal(place: Place) -> list[Ip]:
    """The address that the host is, however it is written (decimal, octal, hexadecimal); none for a name."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [_ip(each[4][0]) for each in found]


def _ip(text: str | int) -> Ip:
    return ipaddress.ip_address(str(text).partition("%")[0])


def is_public(ip: Ip) -> bool:
    """Is it an address of the open internet? One that hides a private IPv4 address in an IPv6 one is not."""
    if isinstance(ip, ipaddress.IPv6Address):
        inside = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in NAT64:
            inside.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if any(each is not None and not is_public(each) for each in inside) or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not (ip.is_reserved and ip not in NAT64)


def post(url: str, body: bytes, headers: dict[str, str], *, allow_private: bool, seconds: float = SECONDS) -> int:
    """The status that was answered; the answer itself is not read. Raises InvalidRequest for an address that may not be asked, or
    that does not answer in time."""
    place = parse(url, allow_private=allow_private)
    with _connect(place, allow_private, seconds) as link:
        connection = HTTPConnection(place.host, place.port)
        connection.sock = link
        # A receiver that sends a byte now and then does not hold us either.
        ends = threading.Timer(seconds, _shut, [link])
        ends.start()
        try:
            connection.request("POST", place.path, body, {"user-agent": "tunesmith", "connection": "close"} | headers)
            return connection.getresponse().status
        except (OSError, HTTPException) as error:
            raise _no_answer(place, error) from error
        finally:
            ends.cancel()


def _connect(place: Place, allow_private: bool, seconds: float) -> socket.socket:
    """To the first address that takes the connection, with TLS where the URL has it."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _no_answer(place, error) from error
    if not allow_private and not all(is_public(_ip(each[4][0])) for each in found):
        raise _refused("names a private address", "url")
    last: OSError = OSError("it has no address")
    for family, kind, protocol, _, address in found:
        link = socket.socket(family, kind, protocol)
        try:
            link.settimeout(seconds)
            link.connect(address)
            return ssl.create_default_context().wrap_socket(link, server_hostname=place.host) if place.is_tls else link
        except OSError as error:
            link.close()
            last = error
    raise _no_answer(place, last) from last


def _shut(link: socket.socket) -> None:
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it had ended by itself


def _no_answer(place: Place, error: Exception) -> InvalidRequest:
    why = str(error) or type(error).__name__
    return InvalidRequest(f"{place.host} does not answer: {why}.", hint="Is it up?", param="url", code="url_unreachable")
