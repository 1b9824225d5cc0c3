"""uvicorn's HTTP/1.1 for strangers: headers have a time, connections a number, readers a pace, and what is malformed ends the connection.

uvicorn.Config(app, http=guarded(limits, gate.turn_away), ...)
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import Any

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from .refusals import Headers, Refused, of_status
from .settings import Limits
from .turnstile import plain

_GOODBYE = 1.0
"""Seconds for which what still comes is dropped: who closes with bytes unread may lose the answer on its way."""


def guarded(limits: Limits, turn_away: TurnAway = lambda scope: None) -> type[H11Protocol]:
    """The protocol with these limits, for one server. `turn_away`: asked about a plain request with a body (`turnstile`) before anything
    is made of it."""
    return type("GuardedProtocol", (_Guarded,), {"limits": limits, "many": set(), "turn_away": staticmethod(turn_away)})


TurnAway = Callable[[Scope], "tuple[Refused, Headers] | None"]
"""The refusal of a request and the head of its answer, or None where there is a place for it."""


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
    turn_away: TurnAway
    many: set[_Guarded]
    """Connections above the limit that are being told so."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.conn = _Strict(h11.SERVER, self.limits.header_bytes)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._leaving = False
        self._owed = b""
        """What who has been turned away is told as soon as the rest of the body has come,"""
        self._rest = 0
        """which has so many bytes."""
        self._new = True
        """No request has come yet."""

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) < self.limits.connections:
            super().connection_made(transport)
            self._watch_headers()
            return
        self.transport = transport
        if len(self.many) >= self.limits.connections:
            transport.abort()
            return
        self.many.add(self)
        self._leave(Refused(503, "the server has too many connections", "busy", retry_after=5))

    def connection_lost(self, exc: Exception | None) -> None:
        self.many.discard(self)
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
            self.transport.write(_last_word(refusal))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.loop.call_later(_GOODBYE, self.transport.abort)

    # Requests

    def data_received(self, data: bytes) -> None:
        while data and not self._leaving and (self._owed or self._turned_away(data)):
            data = self._drop(data)
        if data and not self._leaving:
            super().data_received(data)
        self._watch_headers()

    def _turned_away(self, data: bytes) -> bool:
        """Whether a request begins here that there is no place for, and that can be refused without more ado."""
        if not self._between or self.conn.trailing_data[0] or self.flow.write_paused or (request := plain(data)) is None:
            return False
        scope = {**request.scope, "client": self.client, "server": self.server}
        if (refused := self.turn_away(scope)) is None:
            return False
        refusal, head = refused
        self._unset_keepalive_if_required()
        self._owed, self._rest = _raw(refusal, [*self.server_state.default_headers, *head]), request.size + request.length
        return True

    def _drop(self, data: bytes) -> bytes:
        """What follows a body that nobody reads, once it is whole."""
        dropped = min(self._rest, len(data))
        self._rest -= dropped
        if not self._rest:
            self.transport.write(self._owed)
            self._owed, self._new = b"", False
            self._forget_headers()
            self.server_state.total_requests += 1
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self._watch_writing()
        return data[dropped:]

    def send_400_response(self, msg: str) -> None:
        """Called for what is no HTTP. An answer that has begun cannot become another one."""
        silent = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        self._leave(None if silent else of_status(self.conn.hint if self.conn.hint in (400, 431) else 400))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_headers()
        self._watch_writing()

    @property
    def _between(self) -> bool:
        """No request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _awaits_headers(self) -> bool:
        """A request has begun to come, or the first one has not yet; or what is left of one that is refused."""
        begun = (self._new and self.cycle is None) or bool(self._owed) or bool(self.conn.trailing_data[0])
        return self._between and not self.transport.is_closing() and begun

    def _watch_headers(self) -> None:
        if not self._awaits_headers or self._leaving:
            self._forget_headers()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.limits.header_seconds, self._headers_late)

    def _forget_headers(self) -> None:
        if self._header_timer:
            self._header_timer.cancel()
        self._header_timer = None

    def _headers_late(self) -> None:
        begun = bool(self.conn.trailing_data[0]) or bool(self._owed)
        self._leave(Refused(408, "the request came too slowly", "headers_too_slow") if begun else None)

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


def _last_word(refusal: Refused) -> bytes:
    """Where nothing is known of a request, or there is none."""
    own = [(b"connection", b"close"), (b"x-request-id", secrets.token_hex(12).encode()), (b"x-content-type-options", b"nosniff")]
    return _raw(refusal, [*refusal.head(), *own])


def _raw(refusal: Refused, head: Headers) -> bytes:
    phrase = f"HTTP/1.1 {refusal.status} {refusal.code.replace('_', ' ')}\r\n".encode()
    return phrase + b"".join(b"%b: %b\r\n" % line for line in head) + b"\r\n" + refusal.written()
