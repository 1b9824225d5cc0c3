"""Addresses that a server must not call for its clients, in all spellings, and a watch on what it calls nevertheless."""

from __future__ import annotations

import json
import re
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from paligemma import download
from paligemma.server import media
from tests.server.conftest import Served

from .frame import Trials

WAIT = 0.1
"""Seconds until a fetch that failed is told of, here: there are hundreds."""
MODES = ("asked for", "led to", "resolved to")
"""By the client; by an allowed host that answers with a redirect; by an allowed host's name, alone or beside a public address."""
ALLOWED = "pictures.example.com"
PUBLIC = "93.184.216.34"

HOSTS = (
    *("127.0.0.1", "localhost", "localhost.", "LOCALHOST", "127.1", "127.0.1", "127.255.255.254", "0.0.0.0", "0", "2130706433"),
    *("0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]"),
    *("[::ffff:10.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::a00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fe80::1%25eth0]"),
    *("[fc00::1]", "[fd00::1]", "[ff02::1]", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.1.254"),
    *("169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "metadata.google.internal", "100.64.0.1", "100.127.255.254", "198.18.0.1"),
    *("192.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "evil.example", "evil.example.", f"{ALLOWED}.evil.example"),
    *(f"evil-{ALLOWED}", f"x.{ALLOWED}"),
)
USERS = ("evil", "a:b", "127.0.0.1", "%40", "@", "169.254.169.254:80")
SCHEMES = ("http", "ftp", "gopher", "ws", "jar:https", "dict", "ldap", "view-source:https", "//")
ENDS = ("\\@127.0.0.1/", "\\.evil.example/", "\t/x", "\r\nHost: evil/", "%2f@127.0.0.1/", "。evil/", " /", "\0/")
SPELLINGS = (
    *(f"{scheme}://{host}/x.png" for host in HOSTS for scheme in ("http", "https")),
    *(f"https://{ALLOWED}:{port}/x.png" for port in (80, 22, 8000, 6379, 0, 65536, "443x", "-1")),
    *(f"https://{user}@{ALLOWED}/x.png" for user in USERS),
    *(f"{scheme}://{ALLOWED}/x.png" for scheme in SCHEMES),
    *(f"https://{ALLOWED}{end}" for end in ENDS),
    *("file:///etc/passwd", "file:/etc/passwd", "file:../../etc/passwd", "/etc/passwd", "\\\\host\\share\\x.png", "/dev/zero"),
    *("/proc/self/environ", "https:127.0.0.1", "https:/127.0.0.1/x", "https:///127.0.0.1/x", "https://①②⑦.⓪.⓪.①/x", "https://ⓛocalhost/x"),
    *("https://127。0。0。1/x", "https://xn--lcalhost-54a/x", "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/x"),
    "javascript:alert(1)",
)
"""Of this machine, its network and what else nobody outside should reach through us."""
PRIVATE = (
    *("127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "::1"),
    *("::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "fd00:ec2::254"),
    "240.0.0.1",
)


def all_refused(served: Served, mode: str) -> Trials:
    """The server allows `ALLOWED`. No socket is opened, and all refusals say the same."""
    asked = list(SPELLINGS)
    answers = [[PUBLIC]] * len(asked)
    if mode == "led to":
        asked = [f"https://{ALLOWED}/?{re.sub(r'[^!-~]', '', one)}" for one in asked]
    if mode == "resolved to":
        answers = [among for private in PRIVATE for among in ([private], [PUBLIC, private])]
        asked = [f"https://{ALLOWED}/{number}.png" for number in range(len(answers))]
    texts, times = set[str](), list[float]()
    seconds = media._REFUSAL_SECONDS if mode == "asked for" else WAIT
    with (
        _watched(served.port) as (resolver, dialled),
        mock.patch.object(media, "_FETCH_SECONDS", WAIT),
        _led() if mode == "led to" else mock.patch.object(media, "fetch", media.fetch),
    ):
        for one, addresses in zip(asked, answers, strict=True):
            resolver[:] = addresses
            began = time.monotonic()
            reply = served.ask("POST", "/v1/ocr", json.dumps({"image": one}).encode())
            times.append(time.monotonic() - began)
            assert reply.status == 400, f"{one!r}: {reply.status}"
            texts.add(f"{reply.error()['code']}: {reply.error()['message']}")
            assert not dialled, f"{one!r} opened a socket to {dialled}"
    assert len(texts) == 1, f"the refusals differ: {texts}"
    assert min(times) >= seconds, f"a refusal after {min(times):.3f} s tells of its reason"
    spread = sorted(times)[int(len(times) * 0.95)] - statistics.median(times)
    return Trials(len(asked), {f"addresses {mode}: time of refusals, 95th percentile above the median, ms": round(spread * 1000, 1)})


@contextmanager
def _watched(port: int) -> Iterator[tuple[list[str], list[str]]]:
    """What names resolve to from now on, to be filled in; and every address that is dialled, but for the tests' own on `port`."""
    resolver, dialled, connect = list[str](), list[str](), socket.socket.connect

    def guard(self: socket.socket, address: Any) -> None:
        if address[:2] != ("127.0.0.1", port):
            dialled.append(str(address))
            raise OSError("no network here")
        connect(self, address)

    def look_up(host: str, service: Any, *rest: Any, **options: Any) -> list[Any]:
        found = ["127.0.0.1"] if (host, service) == ("127.0.0.1", port) else resolver
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, service)) for one in found]

    with mock.patch.object(socket.socket, "connect", guard), mock.patch.object(socket, "getaddrinfo", look_up):
        yield resolver, dialled


def _led() -> Any:
    """An allowed host that answers with a redirect to what its address ends in; followed as far as the server's own rules let it."""

    def fetch(url: str, **options: Any) -> bytes:
        redirects = download._Redirects(options["redirects"])
        redirects.redirect_request(download.urllib.request.Request(url), mock.Mock(), 302, "Found", {}, url.partition("?")[2])
        raise AssertionError("it was led on")

    return mock.patch.object(media, "fetch", fetch)
