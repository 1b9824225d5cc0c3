"""One file from the web, with care: https only, public addresses only, bounded in bytes and time, no proxies, no cookies.

The address that is checked is the address that is dialled, at each redirect anew, so a name cannot change its meaning in between.
The time is that of everything together: every wait for the other side, to connect, to encrypt, to read, is given what is left of it
(the system's look-up of a name has a limit of its own).
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from .errors import InputError
from .printable import printable

MAX_BYTES = 20 << 20
SECONDS = 30.0
REDIRECTS = 3
PORT = 443
MAX_URL = 8192
"""Longest address: a request fits into one encrypted record, so that sending it is one wait."""


def fetch(url: str, *, max_bytes: int = MAX_BYTES, seconds: float = SECONDS, redirects: int = REDIRECTS) -> bytes:
    """What lies at an https address, or where it leads by at most so many redirects.

    Raises `InputError` for another scheme or port, an address inside a private network, an answer that is not 200, and too many bytes or
    seconds.
    """
    name = printable(url[:MAX_URL])
    try:
        _check(url)
        request = urllib.request.Request(url, headers={"User-Agent": "paligemma"})  # which asks for nothing packed
        with _opener(time.monotonic() + seconds, redirects).open(request) as response:
            return _body(response, max_bytes)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", code="download_failed") from error
    except urllib.error.HTTPError as error:
        raise InputError(f"{name}: the server answers {error.code}", code="download_failed") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and timeouts are OSErrors, a malformed URL a ValueError
        reason = printable(str(getattr(error, "reason", error)))[:120]
        raise InputError(f"{name}: cannot be fetched ({reason})", code="download_failed") from error


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """Read piece by piece: a length in a header proves nothing."""
    data = bytearray()
    while piece := response.read1(1 << 16):
        data += piece
        if len(data) > max_bytes:
            raise InputError(f"more than the allowed {max_bytes:,} bytes")
    if response.length:
        raise InputError(f"the answer ended {response.length:,} bytes early")
    return bytes(data)


def _check(text: str) -> None:
    if len(text) > MAX_URL:
        raise InputError(f"an address of {len(text):,} characters, the limit is {MAX_URL:,}")
    url = urllib.parse.urlsplit(text)
    if url.scheme != "https":
        raise InputError(f"expected an https address, found {url.scheme or 'no scheme'}")
    if not url.hostname or url.username is not None or url.password is not None:
        raise InputError("expected an address with a host and without a user name")


def _opener(deadline: float, redirects: int) -> urllib.request.OpenerDirector:
    """Only what is added here is followed: no http, ftp, file or data addresses, no proxies from the environment."""
    opener = urllib.request.OpenerDirector()
    handlers = (_Https(deadline), _Redirects(redirects), urllib.request.HTTPErrorProcessor(), urllib.request.HTTPDefaultErrorHandler())
    for handler in (*handlers, urllib.request.UnknownHandler()):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, most: int):
        self._most, self._followed = most, 0

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> urllib.request.Request | None:
        _check(newurl)
        self._followed += 1
        if self._followed > self._most:
            raise InputError(f"the server leads elsewhere, more often than the allowed {self._most} times")
        fp.close()  # the base class would read what comes with a redirect to its end, which it may not have
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: float):
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_PublicConnection, deadline=self._deadline), req)


class _PublicConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, deadline: float, **options: Any):
        super().__init__(host, **options)
        self._deadline = deadline
        self.response_class = functools.partial(_Response, deadline=deadline)  # pyright: ignore[reportAttributeAccessIssue]

    def connect(self) -> None:
        # As the base class does it, but to an address that was looked at. The certificate is checked against the name.
        if self.port != PORT:
            raise InputError(f"expected port {PORT}, found {self.port}")
        connection = _connect(self.host, self._deadline)
        connection.settimeout(_left(self._deadline))
        self.sock = ssl.create_default_context().wrap_socket(connection, server_hostname=self.host)
        self.sock.settimeout(_left(self._deadline))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, deadline: float, **options: Any):
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Hurried(sock, deadline))


class _Hurried(io.RawIOBase):
    """What comes from a socket, headers too. A server may drip: each piece is waited for no longer than all of it may take."""

    def __init__(self, sock: socket.socket, deadline: float):
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)  # counts as a user of the socket, which stays open until this is closed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(deadline: float) -> float:
    """The seconds until then."""
    if (left := deadline - time.monotonic()) <= 0:
        raise InputError("the download takes too long")
    return left


def _connect(host: str, deadline: float) -> socket.socket:
    """A connection to a public address of `host`. A name that also has a private address is refused."""
    addresses = list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)))
    if not all(map(_is_public, addresses)):
        raise InputError("the host is not on the public internet")
    failure: OSError = OSError("the host has no address")
    for tried, address in enumerate(addresses):
        try:
            return socket.create_connection((address, PORT), _left(deadline) / (len(addresses) - tried))
        except OSError as error:
            failure = error
    raise failure


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # Addresses that carry an IPv4 address inside count as what they carry.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast
