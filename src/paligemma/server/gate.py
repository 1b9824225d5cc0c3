"""In front of the app: who may come in, with how much, and how fast; and what leaves has a request id, and one shape where it is an error.

Pure ASGI, so that it sees every byte of a request before anything is made of it.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import hashlib
import hmac
import ipaddress
import random
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..printable import printable
from . import tracing
from .refusals import LOG, REQUEST_ID, Headers, Refused, Written, of_status, refusal_of, told
from .scheduler import COMING, Coming
from .settings import Settings
from .turnstile import LONGEST

Observe = Callable[[str, str, int, float], None]
"""Called with method, route, status and seconds of each request."""


class Admit(Protocol):
    def __call__(self, client: str, coming: Coming | None = None, /) -> None:
        """Called before the body of a request is read, with `coming` once it has been. Raises `Refused` where there is no place for it."""


_OPEN = ("/", "/healthz")
_OPEN_FOLDER = "/page/"
"""What is shown without a key: that the server lives, and the page, which asks for a key itself."""
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_BODY_TYPES = ("application/json", "multipart/form-data")
_GRACE = 5.0
"""Seconds before the pace of a body counts."""
_LINGER = 1.0
"""Seconds for which the rest of a refused body is read and dropped: who closes with bytes unread may lose the answer on its way."""
_LEFT = 499
"""Status in logs and metrics of a request whose client left."""

_SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""What an answer has unless the app says otherwise."""


class Gate:
    """ASGI middleware. Sets `request_id` and `client`, whom a request counts for, in the scope's state. See `settings` for the limits."""

    def __init__(self, app: ASGIApp, settings: Settings, observe: Observe | None = None, admit: Admit | None = None):
        self.app = app
        self.settings = settings
        self.limits = settings.limits
        self.observe = observe
        self.admit = admit
        self.held = 0
        """Bytes of bodies of all requests under way."""
        self.lots = random.Random()
        """For the ids of requests, which are no secrets: asking the system for each would make way for another thread as often."""
        self._keys = [_digest(key.encode()) for key in settings.api_keys]
        self._hosts = _LOCAL_NAMES | set(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        else:  # nothing here speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})

    def turn_away(self, scope: Scope) -> Written | None:
        """The answer to a request with a body that is refused whatever that is; None where it is to be read. It is counted and in the log,
        as any other, but no span is made of it."""
        exchange = _Exchange(self, scope, _unheard, _unsaid)
        try:
            exchange.check()
        except Refused as refused:
            return exchange.turned_away(refused.written())
        return None

    # What is looked at before the body; each raises `Refused`

    def check_size(self, scope: Scope) -> None:
        address = len(scope.get("raw_path") or scope["path"]) + len(scope.get("query_string", b""))
        headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if address > self.limits.url_bytes or headers > self.limits.header_bytes:
            raise of_status(431)

    def check_host(self, host: bytes, server: Any) -> None:
        """A page of another site can have its own name lead to this machine; it cannot call it by one of ours."""
        name = re.sub(r":\d+$", "", host.decode("latin-1").lower())
        if name not in self._hosts and not (server and _is_address(name) and name.strip("[]") == server[0]):
            raise Refused(403, "the server does not go by this name (Host header)", "host_not_allowed")

    def check_origin(self, method: str, origin: bytes | None, host: bytes) -> None:
        if origin is None or method in ("GET", "HEAD") or self.lets_in(origin):
            return
        if origin.partition(b"://")[2].lower() != host.lower():
            raise Refused(403, "pages of other sites may not call this server", "origin_not_allowed")

    def lets_in(self, origin: bytes | None) -> bool:
        """Whether pages of this origin may read the answers."""
        return origin is not None and origin.decode("latin-1") in self.settings.allowed_origins

    def check_key(self, given: bytes | None) -> None:
        if not self._keys:
            return
        # Digests are of one length, and all keys are looked at: the time says nothing about them.
        digest = _digest(given or b"")
        if not sum(hmac.compare_digest(digest, key) for key in self._keys):
            what = "a key is needed" if given is None else "the key is wrong"
            raise Refused(401, f"{what}: send it as 'Authorization: Bearer KEY'", "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def check_body(self, headers: dict[bytes, bytes]) -> None:
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(415, "compressed bodies are not taken (Content-Encoding)", "unsupported_encoding")
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if kind not in _BODY_TYPES:
            raise Refused(415, f"expected a body of type {' or '.join(_BODY_TYPES)}", "unsupported_media_type")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self.limits.body_bytes:
            raise self.too_large()

    def too_large(self) -> Refused:
        return Refused(413, f"the body has more than the allowed {self.limits.body_bytes:,} bytes", "body_too_large")


class _Exchange:
    """One request and its answer."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send):
        self.gate, self.scope = gate, scope
        self._receive, self._send = receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.key = _key(self.headers)
        given = self.headers.get(b"x-request-id", b"")
        self.id = given.decode() if _ID.fullmatch(given) else f"{gate.lots.getrandbits(96):024x}"
        self.client = f"key-{_digest(self.key).hex()[:16]}" if self.key and gate.settings.api_keys else (scope.get("client") or ["-"])[0]
        self.method = scope["method"] if scope["method"] in _METHODS else "other"
        self.begun = time.monotonic()
        self.coming = Coming()
        # Of the body
        self.unread = b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0").strip(b"0") != b""
        self.received = 0
        self.reading_since: float | None = None
        # Of the answer
        self.refusal: Refused | None = None
        """Found while the app was reading: said in the place of whatever the app makes of it."""
        self.status = 0
        self.finished = False

    async def run(self) -> None:
        tokens = REQUEST_ID.set(self.id), COMING.set(self.coming)
        self.scope.setdefault("state", {}).update(request_id=self.id, client=self.client)
        try:
            with tracing.request(self.headers, self.method, self.id) as span:
                if not await self._preflight():
                    self.check()
                    await self.gate.app(self.scope, self.receive, self.send)
                span.update_name(f"{self.method} {self.route}")
                span.set_attribute("http.response.status_code", self.status)
        except ClientDisconnect:
            pass
        except Exception as error:
            refusal = told(error)
            if not self.status:
                await self._refuse(self.refusal or refusal)
        finally:
            self.gate.held -= self.received
            self.coming.over()
            REQUEST_ID.reset(tokens[0])
            COMING.reset(tokens[1])
            self._account()

    @property
    def route(self) -> str:
        """The pattern of the path, not the path, of which there could be any number."""
        return getattr(self.scope.get("route"), "path", "other")

    async def _preflight(self) -> bool:
        """Whether it was a browser's question if a page of another site may call. It carries no key."""
        origin = self.headers.get(b"origin")
        if self.scope["method"] != "OPTIONS" or b"access-control-request-method" not in self.headers or not self.gate.lets_in(origin):
            return False
        self.gate.check_host(self.headers.get(b"host", b""), self.scope.get("server"))
        headers = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type, x-api-key, x-request-id"),
            (b"access-control-max-age", b"600"),
        ]
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})
        return True

    def check(self) -> None:
        gate, scope, path = self.gate, self.scope, self.scope["path"]
        gate.check_size(scope)
        host = self.headers.get(b"host", b"")
        gate.check_host(host, scope.get("server"))
        gate.check_origin(scope["method"], self.headers.get(b"origin"), host)
        if not _is_plain(path):
            raise of_status(404)
        if scope["method"] not in ("GET", "HEAD") or not (path in _OPEN or path.startswith(_OPEN_FOLDER)):
            gate.check_key(self.key)
        if self.unread:
            gate.check_body(self.headers)
            if gate.admit:
                gate.admit(self.client)

    # What the app sees

    async def receive(self) -> Message:
        if not self.unread:
            return await self._receive()
        now = time.monotonic()
        self.reading_since = self.reading_since or now
        limits = self.gate.limits
        until = self.reading_since + min(limits.body_seconds, _GRACE + self.received / limits.body_rate)
        try:
            async with asyncio.timeout(until - now):
                message = await self._receive()
        except TimeoutError:
            raise self._instead(Refused(408, "the body came too slowly", "body_too_slow")) from None
        self.unread = message.get("more_body", False)
        size = len(message.get("body", b""))
        self.received += size
        self.gate.held += size
        if self.received > limits.body_bytes:
            raise self._instead(self.gate.too_large())
        if self.gate.held > limits.bodies_bytes:
            raise self._instead(Refused(503, "too many large requests at a time", "busy", retry_after=5))
        if not self.unread and self.gate.admit:
            try:
                self.gate.admit(self.client, self.coming)
            except Refused as refused:
                raise self._instead(refused) from None
        return message

    def _instead(self, refusal: Refused) -> Refused:
        self.refusal = refusal
        return refusal

    async def send(self, message: Message) -> None:
        if self.finished:  # refused already
            return
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", [])]
            shape = dict(headers).get(b"content-type", b"")
            if self.refusal:
                await self._refuse(self.refusal)
            elif message["status"] >= 400 and not shape.startswith(b"application/json"):
                kept = {name.decode(): value.decode() for name, value in headers if name in (b"allow", b"retry-after")}
                await self._refuse(of_status(message["status"], kept) if message["status"] < 500 else refusal_of(RuntimeError()))
            else:
                await self._begin(message["status"], headers)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._end(message.get("body", b""))

    # The answer

    async def _begin(self, status: int, headers: Headers) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": self._dressed(headers)})

    def _dressed(self, headers: Headers) -> Headers:
        dressed = {**_SECURITY, b"x-request-id": self.id.encode()}
        origin = self.headers.get(b"origin")
        if origin and self.gate.lets_in(origin):
            dressed |= {b"access-control-allow-origin": origin, b"access-control-expose-headers": b"x-request-id, retry-after"}
        if self.gate.settings.allowed_origins:
            dressed[b"vary"] = b"Origin"
        if self.unread:
            dressed[b"connection"] = b"close"
        own = [(name, value) for name, value in headers if name != b"x-request-id"]
        names = {name for name, _ in own}
        return [*own, *(item for item in dressed.items() if item[0] not in names)]

    async def _end(self, body: bytes) -> None:
        if self.unread:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._drop_rest()
            body = b""
        self.finished = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _drop_rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while self.unread:
                    self.unread = (await self._receive()).get("more_body", False)

    async def _refuse(self, refusal: Refused) -> None:
        length = self.headers.get(b"content-length", b"")
        if self.unread and length.isdigit() and int(length[:20]) <= LONGEST:  # then the connection can be used again
            await self._drop_rest()
        status, head, body = refusal.written()
        await self._begin(status, head)
        await self._end(body)
        self.finished = True

    def turned_away(self, answer: Written) -> Written:
        """Somebody else gives it, once the body is here."""
        self.status, self.unread = answer.status, False
        self._account()
        return answer._replace(head=self._dressed(answer.head))

    def _account(self) -> None:
        seconds = time.monotonic() - self.begun
        method, status = self.method, self.status or _LEFT
        if self.gate.observe:
            self.gate.observe(method, self.route, status, seconds)
        path = printable(self.scope["path"])[:200]
        facts = {"request_id": self.id, "client": self.client, "method": method, "path": path, "status": status, "seconds": seconds}
        LOG.info("%s %s %s %s %d %.3f s", self.id, self.client, method, path, status, seconds, extra=facts)


async def _unheard() -> Message:
    return {"type": "http.disconnect"}


async def _unsaid(message: Message) -> None:
    """Who is turned away is not spoken to from here."""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _key(headers: dict[bytes, bytes]) -> bytes | None:
    """As a bearer has it, in a header of its own, or as the password of whatever user, which is all that some programs can send."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return given.strip()
    if scheme.lower() == b"basic" and b"x-api-key" not in headers:
        with contextlib.suppress(ValueError):
            return binascii.a2b_base64(given.strip(), strict_mode=True).partition(b":")[2]
        return b""
    return headers.get(b"x-api-key")


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host.strip("[]")))
    return False


def _is_plain(path: str) -> bool:
    """Whether a path means the same to everyone: no empty, `.` or `..` parts, no backslash, no control characters."""
    if path == "/":
        return True
    first, *parts = path.split("/")
    return not first and "\\" not in path and path.isprintable() and not {"", ".", ".."} & set(parts)
