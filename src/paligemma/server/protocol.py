"""uvicorn's HTTP/1.1 for strangers: headers have a time, connections a number, readers a pace, and what is malformed ends the connection.

uvicorn.Config(app, http=guarded(limits, gate.turn_away), ...)
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from http.client import responses
from typing import Any

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from .refusals import Headers, Refused, Written, of_status
from .settings import Limits
from .turnstile import plain

_GOODBYE = 1.0
"""Seconds for which what still comes is dropped: who closes with bytes unread may lose the answer on its way."""

TurnAway = Callable[[Scope], Written | None]
"""The answer to a request that is refused whatever its body is; None where it is to be read."""
_AT_ONCE = 16
"""Requests that are refused before others have their turn, of those that came together."""


def guarded(limits: Limits, turn_away: TurnAway) -> type[H11Protocol]:
    """The protocol with these limits, for one server. `turn_away`: asked about a plain request with a body (`turnstile`) before anything
    is made of it."""
    return type("GuardedProtocol", (_Guarded,), {"limits": limits, "beyond": set(), "turn_away": staticmethod(turn_away)})


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
    beyond: set[_Guarded]
    """Connections above the limit that are being told so."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.conn = _Strict(h11.SERVER, self.limits.header_bytes)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._leaving = False
        self._owed: Written | None = None
        """What who has been turned away is told, as soon as the request is here."""
        self._rest = 0
        """Bytes of that request which have not come."""
        self._refused = False
        """Whether a request has been refused here, of which no cycle was made."""

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) < self.limits.connections:
            super().connection_made(transport)
            self._watch_headers()
            return
        self.transport = transport
        if len(self.beyond) >= self.limits.connections:
            transport.abort()
            return
        self.beyond.add(self)
        self._leave(_last_word(Refused(503, "the server has too many connections", "busy", retry_after=5).written()))

    def connection_lost(self, exc: Exception | None) -> None:
        self.beyond.discard(self)
        for timer in (self._header_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._owed:
            self._leave(_last_word(self._owed))
        else:
            super().shutdown()

    def _leave(self, word: bytes = b"") -> None:
        """A last word, then nothing more is heard."""
        self._leaving, self._owed = True, None
        if self.cycle:
            self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
            self.cycle.message_event.set()
        if word:
            self.transport.write(word)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.loop.call_later(_GOODBYE, self.transport.abort)

    # Requests

    def data_received(self, data: bytes) -> None:
        for _ in range(_AT_ONCE):
            if not data or self._gone or not (self._owed or self._turned_away(data)):
                break
            data = self._drop(data)
        if data and not self._gone:
            super().data_received(data)
        self._watch_headers()

    @property
    def _gone(self) -> bool:
        """What comes is not looked at any more."""
        return self._leaving or self.transport.is_closing()

    def _turned_away(self, data: bytes) -> bool:
        """Whether a request begins here that is refused without more ado."""
        if not self._between or self.conn.trailing_data[0] or self.flow.write_paused or (request := plain(data)) is None:
            return False
        self._owed = self.turn_away({**request.scope, "client": self.client, "server": self.server})
        self._rest = request.size + request.length
        return self._owed is not None

    def _drop(self, data: bytes) -> bytes:
        """What follows the request that is refused, which is answered once it is whole."""
        self._unset_keepalive_if_required()
        dropped = min(self._rest, len(data))
        self._rest -= dropped
        if not self._rest and self._owed:
            self.transport.write(_raw(self._owed, self.server_state.default_headers))
            self._owed, self._refused = None, True
            self._forget_headers()
            self.server_state.total_requests += 1
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self._watch_writing()
        return data[dropped:]

    def send_400_response(self, msg: str) -> None:
        """Called for what is no HTTP. An answer that has begun cannot become another one."""
        silent = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        refusal = of_status(self.conn.hint if self.conn.hint in (400, 431) else 400)
        self._leave(b"" if silent else _last_word(refusal.written()))

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
        first = self.cycle is None and not self._refused
        begun = first or bool(self._owed) or bool(self.conn.trailing_data[0])
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
        late = Refused(408, "the headers came too slowly", "headers_too_slow").written() if self.conn.trailing_data[0] else None
        word = self._owed or late
        self._leave(_last_word(word) if word else b"")

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


def _last_word(answer: Written) -> bytes:
    """With the end of the connection. Where nothing is known of a request, or there is none, the answer gets an id."""
    names = {name for name, _ in answer.head}
    own = [(b"x-request-id", secrets.token_hex(12).encode()), (b"x-content-type-options", b"nosniff")]
    return _raw(answer, [(b"connection", b"close"), *(line for line in own if line[0] not in names)])


def _raw(answer: Written, more: Headers) -> bytes:
    first = f"HTTP/1.1 {answer.status} {responses[answer.status]}\r\n".encode()
    return first + b"".join(b"%b: %b\r\n" % line for line in [*answer.head, *more]) + b"\r\n" + answer.body
