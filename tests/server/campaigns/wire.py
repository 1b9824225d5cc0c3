"""C8: bytes that are hardly HTTP, and addresses that a server must not call.

A right request is broken in one or several ways. What comes back is whole answers of our shape or a closed connection; a request that was
hidden in another one's body is never answered.
"""

from __future__ import annotations

import json
import logging
import random
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from paligemma.server.media import Budget, read_picture
from paligemma.server.refusals import LOG, Refused, answer
from paligemma.server.settings import Limits, Settings
from tests.server.conftest import LEAK, Served, heard, serving

from . import addresses
from .frame import Trials

NAME = "C8"
TITLE = "bytes that are hardly HTTP, and SSRF"
SIZES = {"push": 300, "ci": 3000, "release": 30_000}
TOGETHER = 100
"""Broken requests of one case, some of which wait until the server loses patience."""
AT_ONCE = 16
LIMITS = Limits(header_seconds=0.6, body_seconds=1.0, keep_alive=1)
"""Short, so that what waits for more is over soon."""
HANG = 30.0
FULL = 0.3
"""Share of the looks for a place that find none, where bytes are broken."""

Point = tuple[str, str | int]


def points(tier: str, rng: random.Random) -> list[Point]:
    """("addresses", how they are reached), ("bytes", seed)"""
    return [
        *(("addresses", mode) for mode in addresses.MODES),
        *(("bytes", rng.randrange(1 << 30)) for _ in range(SIZES[tier] // TOGETHER)),
    ]


class Stage(logging.Handler):
    """`seen`: marks of what was let through. `failures`: what the server's log calls an error. `full`: share of looks for a place that
    find none."""

    served: Served

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: set[str] = set()
        self.failures: list[str] = []
        self.full = 0.0
        self._lots = random.Random(0)

    def emit(self, record: logging.LogRecord) -> None:
        self.failures.append(record.getMessage())

    def admit(self, client: str, coming: object = None) -> None:
        if self._lots.random() < self.full:
            raise Refused(429, "the queue is full", "queue_full", retry_after=1)


@contextmanager
def stage() -> Iterator[Stage]:
    """The gate and the protocol, in front of an app that reads pictures as the real one does and notes marks of what reached it."""
    found = Stage()
    settings = Settings(limits=LIMITS, media_domains=(addresses.ALLOWED,))

    async def read(request: Request) -> JSONResponse:
        found.seen.add(request.headers.get("x-mark", ""))
        try:
            value = json.loads(await request.body())["image"]
        except (ValueError, KeyError, TypeError):
            raise Refused(400, "no picture", "invalid_json") from None
        return JSONResponse({"bytes": len(await read_picture(str(value), "image", Budget(settings.limits), settings))})

    async def look(request: Request) -> JSONResponse:
        found.seen.add(request.headers.get("x-mark", ""))
        return JSONResponse({"status": "ok"})

    routes = [Route("/healthz", look), Route("/v1/models", look), Route("/hidden", look), Route("/v1/ocr", read, methods=["POST"])]
    app = Starlette(routes=routes, exception_handlers={Refused: answer})
    with serving(app, settings, admit=found.admit) as found.served:
        LOG.addHandler(found)
        try:
            yield found
        finally:
            LOG.removeHandler(found)


def check(stage: Stage, point: Point, rng: random.Random) -> Trials:
    kind, what = point
    stage.full = 0.0 if kind == "addresses" else FULL
    if kind == "addresses":
        return addresses.all_refused(stage.served, str(what))
    seeds = [f"{what} {number}" for number in range(TOGETHER)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda seed: _ask_broken(stage, seed), seeds))
    assert stage.served.ask("GET", "/healthz").status == 200
    assert not stage.failures, stage.failures[0]
    return Trials(TOGETHER)


def _ask_broken(stage: Stage, seed: str) -> None:
    rng = random.Random(seed)
    mark = f"hidden-{rng.randrange(1 << 60):x}"
    request, length, body = _request(rng, mark)
    for _ in range(rng.randrange(1, 4)):
        request = rng.choice(BREAKS)(request, rng)
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
    _judge(answers, request)
    assert mark not in stage.seen or not _is_hidden(request, mark, length, body), f"a hidden request was let through: {request!r}"


def _is_hidden(request: bytes, mark: str, length: bytes, body: bytes) -> bool:
    """Whether the marked one is still inside a body, by the line that says its length. Elsewhere it is a request of its own."""
    head, _, rest = request.partition(b"\r\n\r\n")
    if length not in head.split(b"\r\n") or re.search(rb"\n\r?\n", head):
        return False
    size = re.fullmatch(rb"Content-Length: (\d+)", length)
    return mark.encode() in rest[: int(size[1])] if size else rest.startswith(body)


def _judge(data: bytes, request: bytes) -> None:
    """Whole answers, none of them a failure of ours, none of them telling anything."""
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, f"half an answer: {data[:200]!r} to {request!r}"
        lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", lines[0])
        assert found, f"no answer: {lines[0]!r} to {request!r}"
        status = int(found[1])
        if status == 100:
            data = rest
            continue
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
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


def _request(rng: random.Random, mark: str) -> tuple[bytes, bytes, bytes]:
    """A right one, its line that says how long its body is, and that body. Every second one holds a request that must not be answered."""
    body = b'{"image": "x"}'
    if rng.random() < 0.5:
        body += f"GET /hidden HTTP/1.1\r\nHost: localhost\r\nX-Mark: {mark}\r\n\r\n".encode()
    path = rng.choice(("/v1/ocr", "/v1/ocr", "/healthz", "/v1/models", "/nowhere"))
    method = rng.choice(("POST", "POST", "POST", "GET", "HEAD", "OPTIONS", "PUT"))
    length = b"Content-Length: %d" % len(body)
    if rng.random() < 0.3:
        length, body = b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    headers = [b"Host: localhost", b"Content-Type: application/json", length]
    if rng.random() < 0.2:
        headers.append(b"Expect: 100-continue")
    rng.shuffle(headers)
    return f"{method} {path} HTTP/1.1\r\n".encode() + b"\r\n".join(headers) + b"\r\n\r\n" + body, length, body


def _pieces(request: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(request) + 1) for _ in range(rng.choice((0, 0, 1, 3))))
    return [request[start:end] for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True)]


# Ways to break it

Break = Callable[[bytes, random.Random], bytes]
STRANGE = (b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\x7f", b"\xff\xfe", b"%00", b"../", bytes(300), b"A" * 20_000)


def _with_line(*lines: bytes) -> Break:
    """One of these among the headers."""

    def add(request: bytes, rng: random.Random) -> bytes:
        head, end, body = request.partition(b"\r\n\r\n")
        first, *rest = head.split(b"\r\n")
        rest.insert(rng.randrange(len(rest) + 1), rng.choice(lines))
        return b"\r\n".join([first, *rest]) + end + body

    return add


def _instead(old: bytes, *new: bytes) -> Break:
    return lambda request, rng: request.replace(old, rng.choice(new), 1)


def _flipped(request: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(request) + 1)
    return request[:place] + bytes([rng.randrange(256)]) + request[place + 1 :]


def _removed(request: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(request) + 1)
    return request[:place] + request[place + rng.randrange(1, 8) :]


def _inserted(request: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(request) + 1)
    return request[:place] + rng.choice(STRANGE) + request[place:]


BREAKS: tuple[Break, ...] = (
    _flipped,
    _removed,
    _inserted,
    lambda request, rng: request[: rng.randrange(len(request) + 1)],  # the client leaves early
    lambda request, rng: request * rng.randrange(2, 5),  # several in a row
    lambda request, rng: rng.randbytes(rng.randrange(1, 2000)),
    lambda request, rng: b"\x16\x03\x01" + request,  # TLS, to a server that speaks none
    _with_line(b"Content-Length: -1", b"Content-Length: 1e99", b"Content-Length: 5", b"Content-Length: 0x10", b"Content-Length: 5, 6"),
    _with_line(b"Content-Length: 99999999999999999999", b"Content-Length: +5", b"Content-Length:", b"Content-Length : 5"),
    _with_line(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked"),
    _with_line(b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked, chunked", b" Transfer-Encoding: chunked"),
    _with_line(b"Host: evil.example", b"Host:", b"Host: localhost, evil.example", b"Host: [::1", b"Origin: http://evil.example"),
    _with_line(b"Content-Encoding: gzip", b"Upgrade: websocket", b"Connection: Upgrade", b"Connection: close", b"Upgrade: h2c"),
    _with_line(b"X: " + b"a" * 17_000, b"X" * 9000 + b": a", b"X-Request-ID: ../../x", b"Cookie: " + b"a=b; " * 1000),
    _instead(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b" HTTP/0.9", b" HTTP/1.1 x", b"", b" http/1.1", b" HTTP/1.15"),
    _instead(b" /", b" //", b" /../", b" /%2e%2e/", b" /%00", b" http://localhost/", b" *", b" /" + b"a" * 9000, b" \\"),
    _instead(b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\r\n"),
    _instead(b"0\r\n\r\n", b"", b"-1\r\n\r\n", b"fffffffffffffffff\r\n", b"0\r\nX-Trailer: a\r\n\r\n", b"0;a=1\r\n\r\n", b"g\r\n\r\n"),
)
