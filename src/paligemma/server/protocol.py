"""uvicorn's HTTP/1.1 for strangers: headers have a time, connections a number, readers a pace, and what is malformed ends the connection.

uvicorn.Config(app, http=guarded(limits), ...)
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .refusals import Refused, of_status
from .settings import Limits

_GOODBYE = 1.0
"""Seconds for which what still comes is dropped: who closes with bytes unread may lose the answer on its way."""


def guarded(limits: Limits) -> type[H11Protocol]:
    """The protocol with these limits, for one server."""
    return type("GuardedProtocol", (_Guarded,), {"limits": limits, "turned_away": set()})


class _Strict(h11.Connection):
    """Refuses what two programs may understand differently: where one request ends and the next one starts."""

    hint = 400
    """Status for the last mistake."""

    def next_event(self) -> Any:
        try:
            if self.their_state is h11.IDLE and _folded(self.trailing_data[0]):
                raise h11.RemoteProtocolError("a header of several lines")
            event = super().next_event()
            if isinstance(event, h11.Request):
                _check(event)
            return event
        except h11.RemoteProtocolError as error:
            self.hint = error.error_status_hint
            raise


def _folded(data: bytes) -> bool:
    """Whether a line of the headers begins with a space: to some the last header goes on, to others it is one of its own."""
    end = re.search(rb"\n\r?\n", data)
    return re.search(rb"\n[ \t]", data[: end.start()] if end else data) is not None


def _check(request: h11.Request) -> None:
    if request.http_version not in (b"1.0", b"1.1"):
        raise h11.RemoteProtocolError("another version of HTTP")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        raise h11.RemoteProtocolError("a body of two lengths")


class _Guarded(H11Protocol):
    limits: Limits
    turned_away: set[_Guarded]
    """Connections above the limit that are being told so."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.conn = _Strict(h11.SERVER, self.limits.header_bytes)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._leaving = False

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) < self.limits.connections:
            super().connection_made(transport)
            self._watch_headers()
            return
        self.transport = transport
        if len(self.turned_away) >= self.limits.connections:
            transport.abort()
            return
        self.turned_away.add(self)
        self._leave(Refused(503, "the server has too many connections", "busy", retry_after=5))

    def connection_lost(self, exc: Exception | None) -> None:
        self.turned_away.discard(self)
        for timer in (self._header_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def _leave(self, refusal: Refused | None) -> None:
        """A last word, then nothing more is heard."""
        self._leaving = True
        if self.cycle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if refusal:
            self.transport.write(_raw(refusal))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.loop.call_later(_GOODBYE, self.transport.abort)

    # Requests

    def data_received(self, data: bytes) -> None:
        if not self._leaving:
            super().data_received(data)
            self._watch_headers()

    def send_400_response(self, msg: str) -> None:
        """Called for what is no HTTP. An answer that has begun cannot become another one."""
        silent = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        self._leave(None if silent else of_status(self.conn.hint if self.conn.hint in (400, 431) else 400))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_headers()
        self._watch_writing()

    @property
    def _awaits_headers(self) -> bool:
        """A request has begun to come, or the first one has not yet."""
        between = self.cycle is None or self.cycle.response_complete
        return between and not self.transport.is_closing() and (self.cycle is None or bool(self.conn.trailing_data[0]))

    def _watch_headers(self) -> None:
        if not self._awaits_headers or self._leaving:
            if self._header_timer:
                self._header_timer.cancel()
            self._header_timer = None
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.limits.header_seconds, self._headers_late)

    def _headers_late(self) -> None:
        begun = bool(self.conn.trailing_data[0])
        self._leave(Refused(408, "the headers came too slowly", "headers_too_slow") if begun else None)

    # Answers

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch_writing()

    def _watch_writing(self) -> None:
        """While the app waits for the client, or has nothing more to say to it."""
        if self._write_timer:
            self._write_timer.cancel()
        self._write_timer = None
        left = self.transport.get_write_buffer_size()
        if left and (self.flow.write_paused or self.cycle is None or self.cycle.response_complete):
            self._write_timer = self.loop.call_later(self.limits.blocked_write_seconds, self._look_at_writing, left)

    def _look_at_writing(self, before: int) -> None:
        """`before`: bytes that waited to be read by the client when the watch began; none have come since."""
        if before - self.transport.get_write_buffer_size() < self.limits.blocked_write_seconds * self.limits.body_rate:
            self.transport.abort()
        else:
            self._watch_writing()


def _raw(refusal: Refused) -> bytes:
    body = json.dumps(refusal.body()).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-ID": secrets.token_hex(12),
        "X-Content-Type-Options": "nosniff",
        **(refusal.headers or {}),
    }
    phrase = f"HTTP/1.1 {refusal.status} {refusal.code.replace('_', ' ')}\r\n"
    return phrase.encode() + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n" + body
