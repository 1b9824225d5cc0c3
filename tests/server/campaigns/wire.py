"""C8: bytes that are hardly HTTP, and addresses that a server must not call.

Bytes: a right request, broken in one or several ways. What comes back is whole answers of our shape or a closed connection; a request that
was hidden in another one's body is never answered. Addresses: names and numbers for this machine and its network in all spellings, an
allowed host that leads there, and one whose name does; the resolver is ours and every socket that is opened is looked at.
"""

from __future__ import annotations

import json
import random
import re
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from paligemma import download
from paligemma.server import media
from paligemma.server.media import Budget, read_picture
from paligemma.server.refusals import Refused, answer
from paligemma.server.settings import Limits, Settings
from tests.server.conftest import LEAK, Served, heard, serving

from .frame import Trials

NAME = "C8"
TITLE = "bytes that are hardly HTTP, SSRF"
SIZES = {"push": 300, "ci": 3000, "release": 30_000}
LIMITS = Limits(header_seconds=0.6, body_seconds=1.0, keep_alive=1)
"""Short, so that what waits for more is over soon."""
HANG = 30.0
ALLOWED = "pictures.example.com"

Point = tuple[str, Any]


def points(tier: str, rng: random.Random) -> list[Point]:
    """("bytes", seed), ("addresses", how they are reached)"""
    modes = [("addresses", mode) for mode in ("asked for", "led to", "resolved to")]
    return [*modes, *(("bytes", rng.randrange(1 << 30)) for _ in range(SIZES[tier]))]


class Stage:
    def __init__(self, served: Served, seen: list[str]):
        self.served, self.seen = served, seen


@contextmanager
def stage() -> Iterator[Stage]:
    """The gate and the protocol, in front of an app that reads pictures as the real one does, and tells what reached it."""
    seen: list[str] = []
    settings = Settings(limits=LIMITS, media_domains=(ALLOWED,))

    async def read(request: Request) -> JSONResponse:
        seen.append(request.url.path + request.headers.get("x-mark", ""))
        data = await request.body()
        try:
            value = json.loads(data)["image"]
        except (ValueError, KeyError, TypeError):
            raise Refused(400, "no picture", "invalid_json") from None
        return JSONResponse({"bytes": len(await read_picture(str(value), "image", Budget(settings.limits), settings))})

    async def look(request: Request) -> JSONResponse:
        seen.append(request.url.path + request.headers.get("x-mark", ""))
        return JSONResponse({"status": "ok"})

    routes = [Route("/healthz", look), Route("/v1/models", look), Route("/marker", look), Route("/v1/ocr", read, methods=["POST"])]
    app = Starlette(routes=routes, exception_handlers={Refused: answer})
    with serving(app, settings) as served:
        yield Stage(served, seen)


def check(stage: Stage, point: Point, rng: random.Random) -> Trials | None:
    kind, what = point
    if kind == "bytes":
        return _bytes(stage, random.Random(what))
    return _addresses(stage, what)


# Bytes


def _bytes(stage: Stage, rng: random.Random) -> None:
    request, hidden = _request(rng)
    for _ in range(rng.randrange(1, 4)):
        request = rng.choice(BREAKS)(request, rng)
    stage.seen.clear()
    began = time.monotonic()
    with stage.served.connect() as connection:
        connection.settimeout(HANG)
        try:
            for piece in _pieces(request, rng):
                connection.sendall(piece)
            if rng.random() < 0.7:
                connection.shutdown(socket.SHUT_WR)
        except OSError:  # it has hung up before the end
            pass
        try:
            answers = heard(connection)
        except TimeoutError:
            raise AssertionError(f"it hung: {request!r}") from None
    assert time.monotonic() - began < HANG
    _judge(answers, request)
    if hidden:
        assert not [path for path in stage.seen if "hidden" in path], f"a hidden request was let through: {request!r}"
    assert stage.served.ask("GET", "/healthz").status == 200


def _judge(data: bytes, request: bytes) -> None:
    """Whole answers, none of them a failure of ours, none of them telling anything."""
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, f"half an answer: {data[:200]!r} to {request!r}"
        lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", lines[0])
        assert found, f"no answer: {lines[0]!r} to {request!r}"
        status = int(found[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if status == 100:
            data = rest
            continue
        assert "x-request-id" in headers, f"{head!r} to {request!r}"
        assert status < 500 or status == 503, f"{data[:300]!r} to {request!r}"
        # To HEAD there is no body, unless the request could not be read at all.
        size = 0 if request.startswith(b"HEAD ") and not rest.startswith(b"{") else int(headers["content-length"])
        body, data = rest[:size], rest[size:]
        assert len(body) == size, f"an answer cut short: {head!r} to {request!r}"
        assert not LEAK.search(head.decode("latin-1") + body.decode("utf-8", "replace")), f"a leak: {body!r}"
        if status >= 400 and body:
            assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
            assert len(body) <= 700


def _request(rng: random.Random) -> tuple[bytes, bool]:
    """A right request, and whether its body looks like one that must not be answered."""
    hidden = rng.random() < 0.5
    body = b'{"image": "x"}'
    if hidden:
        body += b"GET /marker HTTP/1.1\r\nHost: localhost\r\nX-Mark: hidden\r\n\r\n"
    path = rng.choice(("/v1/ocr", "/v1/ocr", "/healthz", "/v1/models", "/nowhere"))
    method = rng.choice(("POST", "POST", "POST", "GET", "HEAD", "OPTIONS", "PUT"))
    headers = [b"Host: localhost", b"Content-Type: application/json"]
    if rng.random() < 0.3:
        headers.append(b"Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        headers.append(b"Content-Length: %d" % len(body))
    if rng.random() < 0.2:
        headers.append(b"Expect: 100-continue")
    rng.shuffle(headers)
    return f"{method} {path} HTTP/1.1\r\n".encode() + b"\r\n".join(headers) + b"\r\n\r\n" + body, hidden


def _pieces(request: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(request) + 1) for _ in range(rng.choice((0, 0, 1, 3))))
    return [request[start:end] for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True)]


def _header(*lines: bytes) -> Callable[[bytes, random.Random], bytes]:
    """One of these lines is added."""

    def add(request: bytes, rng: random.Random) -> bytes:
        head, end, body = request.partition(b"\r\n\r\n")
        first, *rest = head.split(b"\r\n")
        rest.insert(rng.randrange(len(rest) + 1), rng.choice(lines))
        return b"\r\n".join([first, *rest]) + end + body

    return add


def _replaced(old: bytes, *new: bytes) -> Callable[[bytes, random.Random], bytes]:
    return lambda request, rng: request.replace(old, rng.choice(new), 1)


def _flipped(request: bytes, rng: random.Random) -> bytes:
    if not request:
        return request
    place = rng.randrange(len(request))
    return request[:place] + bytes([rng.randrange(256)]) + request[place + 1 :]


def _removed(request: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(request) + 1)
    return request[:place] + request[place + rng.randrange(1, 8) :]


def _inserted(request: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(request) + 1)
    piece = rng.choice((b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\x7f", b"\xff\xfe", b"%00", b"../", bytes(300), b"A" * 20_000))
    return request[:place] + piece + request[place:]


BREAKS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flipped,
    _removed,
    _inserted,
    lambda request, rng: request[: rng.randrange(len(request) + 1)],  # the client leaves early
    lambda request, rng: request * rng.randrange(2, 5),  # pipelined
    lambda request, rng: rng.randbytes(rng.randrange(1, 2000)),
    lambda request, rng: b"\x16\x03\x01" + request,  # TLS spoken to a server that does not
    _header(b"Content-Length: -1", b"Content-Length: 1e99", b"Content-Length: 5", b"Content-Length: 0x10", b"Content-Length: 5, 6"),
    _header(b"Content-Length: 99999999999999999999", b"Content-Length: +5", b"Content-Length:", b"Content-Length : 5"),
    _header(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: xchunked"),
    _header(b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked, chunked", b" Transfer-Encoding: chunked"),
    _header(b"Host: evil.example", b"Host:", b"Host: localhost, evil.example", b"Host: [::1", b"Origin: http://evil.example", b"Origin: null"),
    _header(b"Content-Encoding: gzip", b"Upgrade: websocket", b"Connection: Upgrade", b"Connection: close", b"Upgrade: h2c", b"TE: trailers"),
    _header(b"X: " + b"a" * 17_000, b"X" * 9000 + b": a", b"X-Request-ID: ../../x", b"X-Request-ID: " + b"a" * 100, b"Cookie: " + b"a=b; " * 1000),
    _replaced(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b" HTTP/0.9", b" HTTP/1.1 x", b"", b" http/1.1", b" HTTP/1.15"),
    _replaced(b" /", b" //", b" /../", b" /%2e%2e/", b" /%00", b" http://localhost/", b" *", b" /" + b"a" * 9000, b" /?" + b"a" * 9000, b" \\"),
    _replaced(b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\r\n"),
    _replaced(b"0\r\n\r\n", b"", b"-1\r\n\r\n", b"fffffffffffffffff\r\n", b"0\r\nX-Trailer: a\r\n\r\n", b"0;ext=1\r\n\r\n", b"g\r\n\r\n"),
)


# Addresses


def _spellings() -> list[str]:
    """150 addresses of this machine, its network and other places that nobody outside should reach, as clients may write them."""
    hosts = [
        "127.0.0.1", "localhost", "localhost.", "LOCALHOST", "127.1", "127.0.1", "127.255.255.254", "0.0.0.0", "0", "2130706433", "0x7f000001",
        "0x7f.1", "017700000001", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
        "[::ffff:7f00:1]", "[64:ff9b::a00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[fd00::1]",
        "[ff02::1]", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.1.254", "169.254.169.254",
        "169.254.170.2", "[fd00:ec2::254]", "metadata.google.internal", "100.64.0.1", "100.127.255.254", "198.18.0.1", "192.0.0.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "evil.example", "evil.example.", f"{ALLOWED}.evil.example", f"evil-{ALLOWED}", f"x.{ALLOWED}",
    ]  # fmt: skip
    urls = [f"{scheme}://{host}/x.png" for host in hosts for scheme in ("http", "https")]
    return [
        *urls,
        *(f"https://{ALLOWED}:{port}/x.png" for port in (80, 22, 8000, 6379, 0, 65536, "443x", "-1")),
        *(f"https://{user}@{ALLOWED}/x.png" for user in ("evil", "a:b", "127.0.0.1", "%40", "@", "169.254.169.254:80")),
        *(f"{scheme}://{ALLOWED}/x.png" for scheme in ("http", "ftp", "gopher", "ws", "jar:https", "dict", "ldap", "view-source:https", "//")),
        *(f"https://{ALLOWED}{bad}" for bad in ("\\@127.0.0.1/", "\\.evil.example/", "\t/x", "\r\nHost: evil/", "%2f@127.0.0.1/", "。evil/", " /", "\0/")),
        *("file:///etc/passwd", "file:/etc/passwd", "file:../../etc/passwd", "/etc/passwd", "\\\\host\\share\\x.png", "/dev/zero", "/proc/self/environ"),
        *("https:127.0.0.1", "https:/127.0.0.1/x", "https:///127.0.0.1/x", "https://①②⑦.⓪.⓪.①/x", "https://ⓛocalhost/x", "https://127。0。0。1/x"),
        *("https://xn--lcalhost-54a/x", "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/x", "javascript:alert(1)"),
    ]  # fmt: skip


PRIVATE = (
    "127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "::1", "::",
    "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "fd00:ec2::254", "240.0.0.1",
)  # fmt: skip


def _addresses(stage: Stage, mode: str) -> Trials:
    dialled: list[str] = []
    connect = socket.socket.connect

    def guard(self: socket.socket, address: Any) -> None:
        if address[:2] != ("127.0.0.1", stage.served.port):
            dialled.append(str(address))
            raise OSError("no network here")
        connect(self, address)

    def fetch(url: str, **options: Any) -> bytes:
        """As the real one, on a host that leads elsewhere: what it is led to is followed as far as it lets us."""
        redirects = download._Redirects(options["redirects"])
        target = url.partition("?")[2]
        request = download.urllib.request.Request(url)
        redirects.redirect_request(request, mock.Mock(), 302, "Found", {}, target)
        raise AssertionError("it was led on")

    asked = _spellings()
    resolved = ["93.184.216.34"]

    def look_up(host: str, port: Any, *rest: Any, **options: Any) -> list[Any]:
        if host == "127.0.0.1" and port == stage.served.port:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in resolved]

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(socket.socket, "connect", guard))
        stack.enter_context(mock.patch.object(socket, "getaddrinfo", look_up))
        seen: list[tuple[int, str, float]] = []
        if mode == "led to":
            stack.enter_context(mock.patch.object(media, "fetch", fetch))
            asked = [f"https://{ALLOWED}/?{re.sub(r'[^!-~]', '', one)}" for one in asked]
        if mode == "resolved to":
            asked = [f"https://{ALLOWED}/{number}.png" for number in range(len(PRIVATE) * 2)]
        for number, one in enumerate(asked):
            if mode == "resolved to":  # alone, and beside a public one
                private = PRIVATE[number // 2]
                resolved[:] = [private] if number % 2 else ["93.184.216.34", private]
            began = time.monotonic()
            reply = stage.served.ask("POST", "/v1/ocr", json.dumps({"image": one}).encode())
            assert reply.status == 400, f"{one!r}: {reply.status}"
            error = reply.error()
            seen.append((reply.status, f"{error['code']}: {error['message']}", time.monotonic() - began))
    texts = {text for _, text, _ in seen}
    assert len(texts) == 1, f"the refusals differ: {texts}"
    assert not dialled, f"sockets were opened: {dialled}"
    times = sorted(seconds for _, _, seconds in seen)
    assert mode != "asked for" or times[0] >= media._REFUSAL_SECONDS, f"a refusal after {times[0]:.3f} s tells of its reason"
    spread = times[int(len(times) * 0.95)] - statistics.median(times)
    return Trials(len(seen), {f"addresses {mode}: refusals' p95 above their median, ms": round(spread * 1000, 1)})
