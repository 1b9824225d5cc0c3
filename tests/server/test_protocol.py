"""What is no HTTP, what is slow, and what is too many ends the connection; nothing that follows a mistake is taken for a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from paligemma.server import protocol
from paligemma.server.refusals import Refused
from paligemma.server.settings import Limits, Settings

from .conftest import Served, eventually, heard, one, reply, serving
from .toy import Toy

LIMITS = Limits(header_seconds=0.4, connections=6, keep_alive=1, blocked_write_seconds=0.3)
MARKER = b"GET /v1/models/marker HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/length HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def served(toy: Toy) -> Iterator[Served]:
    with serving(toy.app, Settings(limits=LIMITS)) as served:
        yield served


LENGTHS = (
    b"Content-Length: -1\r\n", b"Content-Length: 1e99\r\n", b"Content-Length: +5\r\n", b"Content-Length: 0x5\r\n", b"Content-Length: \r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 5, 6\r\n", b"Content-Length: " + b"9" * 40 + b"\r\n",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Content-Length : 5\r\n", b" Content-Length: 5\r\n",
)  # fmt: skip


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("body", [b"", b"0\r\n\r\n", b"12345"])
def test_a_body_of_no_certain_length(served: Served, toy: Toy, lengths: bytes, body: bytes):
    toy.reached.clear()
    answer = reply(served.say(POST + lengths + b"\r\n" + body + MARKER))
    assert (answer.status, answer.error()["code"], answer.headers["connection"]) == (400, "bad_request", "close")
    assert b"HTTP/1.1" not in answer.body  # one answer, no second
    assert not toy.reached


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/length HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http(served: Served, toy: Toy, data: bytes):
    toy.reached.clear()
    answer = reply(served.say(data + MARKER))
    assert (answer.status, answer.error()["type"]) == (400, "invalid_request_error")
    assert b"HTTP/1.1" not in answer.body
    assert not toy.reached


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"-1\r\nx", b"5\r\n123456789", b"ffffffffffffffffffffffffffff\r\n", b"5;" + b"x" * 20_000])
def test_a_body_that_breaks_off_into_nonsense(served: Served, toy: Toy, chunks: bytes, caplog):
    toy.reached.clear()
    heard = served.say(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n" + chunks + MARKER)
    assert reply(heard).status in (400, 431)
    assert heard.count(b"HTTP/1.1") == 1
    assert "/v1/models/marker" not in toy.reached
    time.sleep(0.05)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("head", [POST, b"DELETE /v1/length HTTP/1.1\r\nHost: localhost\r\n"])
def test_nobody_is_told_to_go_on_once_the_connection_ends(served: Served, caplog, head: bytes):
    """A request, refused or not, whose body is nonsense, and which waits for "100 Continue" before it sends it."""
    served.say(head + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\nZZZ\r\n")
    assert reply(served.say(MARKER)).status  # what came before has been dealt with
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_nothing_follows_a_mistake(served: Served, toy: Toy):
    """Also where it comes a moment later."""
    toy.reached.clear()
    with served.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        told = connection.recv(1 << 16)
        with contextlib.suppress(OSError):
            connection.sendall(MARKER)
        told += heard(connection)
    assert reply(told).status == 400
    assert told.count(b"HTTP/1.1") == 1
    assert not toy.reached


def test_what_follows_a_mistake_is_not_kept(served: Served):
    eventually(lambda: not served.server.server_state.connections)
    with served.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        connection.recv(1 << 16)
        (protocol,) = served.server.server_state.connections
        before = len(protocol.conn.trailing_data[0])
        with contextlib.suppress(OSError):
            connection.sendall(bytes(100_000))
        time.sleep(0.1)
        assert len(protocol.conn.trailing_data[0]) == before


def test_headers_without_an_end(served: Served):
    """They are not kept until their time is over."""
    with served.connect() as connection:
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)
        answer = reply(heard(connection))
    assert (answer.status, answer.error()["code"]) == (431, "headers_too_large")


def test_nothing_follows_a_refusal_in_mid_body(served: Served, toy: Toy):
    toy.reached.clear()
    heard = served.say(POST.replace(b"json", b"xml") + b"Content-Length: 100000\r\n\r\n" + MARKER)
    assert reply(heard).status == 415
    assert heard.count(b"HTTP/1.1") == 1
    assert not toy.reached


def test_requests_one_after_the_other(served: Served, toy: Toy):
    toy.reached.clear()
    with served.connect() as connection:
        connection.sendall(POST + b"Content-Length: 3\r\n\r\nabc" + MARKER + MARKER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert heard(connection).count(b"HTTP/1.1 200") == 3
    assert toy.reached == ["/v1/length", "/v1/models/marker", "/v1/models/marker"]


def test_no_other_protocol(served: Served):
    upgrade = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n"
    answer = reply(served.say(upgrade + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"))
    assert answer.status == 200


@contextlib.contextmanager
def who_reads_little(served: Served) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        yield connection


# Refused before anything is made of it


class Door:
    """Whether there are places."""

    def __init__(self) -> None:
        self.open = False
        self.asked = 0

    def admit(self, client: str, coming: object = None) -> None:
        self.asked += 1
        if not self.open:
            raise Refused(429, "32 questions are waiting already", "queue_full", retry_after=1)


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def full(toy: Toy, door: Door) -> Iterator[Served]:
    toy.reached.clear()
    with serving(toy.app, Settings(limits=LIMITS), admit=door.admit) as served:
        yield served


ONE = POST + b"Content-Length: 3\r\n\r\nabc"


def test_refusals_one_after_the_other(door: Door, toy: Toy, caplog):
    """However they arrive; and once there is a place the same connection is served."""
    toy.reached.clear()
    with serving(toy.app, admit=door.admit) as full, full.connect() as connection:
        connection.sendall(3 * ONE)
        heard = connection.recv(1 << 16)
        while heard.count(b"queue_full") < 3:
            heard += connection.recv(1 << 16)
        assert heard.count(b"HTTP/1.1 429 ") == heard.count(b"retry-after: 1\r\n") == heard.count(b"x-request-id: ") == 3
        for place in (1, 30, len(ONE) - 5, len(ONE) - 3, len(ONE) - 2):
            connection.sendall(ONE[:place])
            time.sleep(0.001)
            connection.sendall(ONE[place:])
            assert one(connection).error()["code"] == "queue_full"
        assert not toy.reached
        door.open = True
        connection.sendall(ONE)
        assert one(connection).json() == 3
        with full.connect() as another:
            another.sendall(ONE)
            assert one(another).json() == 3
            door.open = False
            another.sendall(ONE)
            assert one(another).status == 429
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_who_is_refused_again_and_again_keeps_the_connection(full: Served):
    """The time for headers counts for each request anew."""
    with full.connect() as connection:
        for _ in range(8):
            connection.sendall(ONE)
            assert one(connection).status == 429
            time.sleep(0.1)


def test_silence_after_a_refusal(full: Served):
    with full.connect() as connection:
        begun = time.monotonic()
        connection.sendall(ONE)
        assert heard(connection).count(b"HTTP/1.1") == 1
        assert 0.9 < time.monotonic() - begun < 4.5


def test_the_rest_of_what_is_refused_comes_soon_or_not_at_all(full: Served):
    """Then the refusal is the last word."""
    with full.connect() as connection:
        connection.sendall(ONE)
        assert one(connection).status == 429
        connection.sendall(ONE[:-1])
        answer = reply(heard(connection))
    assert (answer.status, answer.error()["code"], answer.headers["connection"]) == (429, "queue_full", "close")
    eventually(lambda: not full.server.server_state.connections)


def test_the_end_comes_after_a_last_word(toy: Toy, door: Door, caplog):
    """Which is said once."""
    with contextlib.ExitStack() as stack:
        with serving(toy.app, Settings(limits=LIMITS), admit=door.admit) as served:
            connection = stack.enter_context(served.connect())
            connection.sendall(ONE[:-1])
            said = connection.recv(1 << 16)
        assert (said + heard(connection)).count(b"HTTP/1.1 429 ") == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_refusal_that_is_owed_is_told_at_the_end(toy: Toy, door: Door):
    with contextlib.ExitStack() as stack:
        with serving(toy.app, admit=door.admit) as served:
            connection = stack.enter_context(served.connect())
            connection.sendall(ONE[:-1])
            eventually(lambda: door.asked)
        assert reply(heard(connection)).error()["code"] == "queue_full"


def test_who_sends_many_at_once_lets_others_have_their_turn(toy: Toy):
    refused, before_others = 0, []

    def admit(client: str, coming: object = None) -> None:
        nonlocal refused
        if not refused:
            asyncio.get_running_loop().call_soon(lambda: before_others.append(refused))
        refused += 1
        raise Refused(429, "32 questions are waiting already", "queue_full", retry_after=1)

    with serving(toy.app, admit=admit) as served, served.connect() as connection:
        connection.sendall(100 * ONE)
        told = b""
        while told.count(b"queue_full") < 100:
            told += connection.recv(1 << 16)
    assert refused >= 100
    assert before_others[0] <= 16


def test_a_refusal_is_no_part_of_another_answer(full: Served):
    with full.connect() as connection:
        connection.sendall(b"GET /v1/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = connection.recv(1 << 16)
        connection.sendall(ONE)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            said += connection.recv(1 << 16)
    assert said.count(b"HTTP/1.1") == 1
    assert b"queue_full" not in said


def test_a_request_within_a_header_is_none(full: Served):
    with full.connect() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nX: ")
        time.sleep(0.05)
        connection.sendall(ONE)
        assert heard(connection).count(b"HTTP/1.1 ") == 1


def test_who_does_not_read_refusals_is_told_no_more(full: Served):
    """Nor are they gathered for somebody who only sends."""
    with who_reads_little(full) as connection:

        def send() -> None:
            with contextlib.suppress(OSError):  # hung up on
                while True:  # so slowly that whole requests arrive
                    connection.sendall(50 * ONE)
                    time.sleep(0.001)

        sending = threading.Thread(target=send)
        sending.start()
        kept = []
        while sending.is_alive():
            kept += [protocol.transport.get_write_buffer_size() for protocol in list(full.server.server_state.connections)]
            time.sleep(0.002)
    assert 0 < max(kept) < 100_000


# Time


def drip(connection: socket.socket, data: bytes, seconds: float) -> None:
    with contextlib.suppress(OSError):
        for byte in data[: int(seconds / 0.05)]:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)


@pytest.mark.parametrize("first", [b"", MARKER])
def test_slow_headers(served: Served, first: bytes):
    """Also of a second request: a connection once used is no exception."""
    begun = time.monotonic()
    with served.connect() as connection:
        if first:
            connection.sendall(first)
            assert one(connection).status == 200
            begun = time.monotonic()
        drip(connection, MARKER, 1.2)
        answer = reply(heard(connection))
    assert (answer.status, answer.error()["code"]) == (408, "headers_too_slow")
    assert 0.3 < time.monotonic() - begun < 8


def test_silence(served: Served):
    begun = time.monotonic()
    with served.connect() as connection:
        assert heard(connection) == b""
    assert 0.3 < time.monotonic() - begun < 8


def test_silence_after_an_answer(served: Served):
    with served.connect() as connection:
        begun = time.monotonic()
        connection.sendall(MARKER)
        assert heard(connection).count(b"HTTP/1.1") == 1
        assert 0.9 < time.monotonic() - begun < 4.5


def test_a_slow_answer_is_not_slow_headers(served: Served, toy: Toy):
    with served.connect() as connection:
        connection.sendall(POST + b"Content-Length: 3\r\n\r\n")
        time.sleep(0.6)
        connection.sendall(b"abc")
        assert one(connection).status == 200


# Number


@pytest.fixture
def patient(toy: Toy) -> Iterator[Served]:
    """As many connections, and time for them."""
    with serving(toy.app, Settings(limits=Limits(connections=LIMITS.connections))) as served:
        yield served


def test_connections_beyond_the_limit(patient: Served, toy: Toy):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(patient.connect()) for _ in range(LIMITS.connections)]
        for connection in held:
            connection.sendall(MARKER)
            one(connection)
        toy.reached.clear()
        turned_away = stack.enter_context(patient.connect())
        turned_away.sendall(MARKER)
        answer = reply(heard(turned_away))
        assert (answer.status, answer.error()["code"], answer.headers["connection"]) == (503, "busy", "close")
        assert answer.headers["retry-after"]
        assert not toy.reached
        held[0].sendall(MARKER)  # those inside are served
        assert one(held[0]).status == 200
        held[0].close()
        eventually(lambda: len(patient.server.server_state.connections) < LIMITS.connections)
        assert patient.ask("GET", "/v1/models").status == 200


def test_those_turned_away_are_not_told_so_without_number(patient: Served, monkeypatch):
    """A word to each takes a place for a while; there are as many of these as of the others."""
    monkeypatch.setattr(protocol, "_GOODBYE", 5.0)
    with contextlib.ExitStack() as stack:
        for _ in range(LIMITS.connections):
            stack.enter_context(patient.connect()).sendall(b"G")
        eventually(lambda: len(patient.server.server_state.connections) == LIMITS.connections)
        more = [stack.enter_context(patient.connect()) for _ in range(3 * LIMITS.connections)]
        told = [heard(connection) for connection in more]
    assert sum(b"503" in words for words in told) == LIMITS.connections
    assert told.count(b"") == 2 * LIMITS.connections


def test_many_slow_connections_do_not_stop_the_others(served: Served):
    eventually(lambda: not served.server.server_state.connections)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(4 * LIMITS.connections)]
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.sendall(b"GET / HT")
        for connection in slow:  # each has been taken and hung up on: until then the next one might wait behind it
            heard(connection)
        eventually(lambda: not served.server.server_state.connections, 10)
        assert served.ask("GET", "/v1/models").status == 200


def test_two_hundred_slow_connections_within_the_limit(toy: Toy):
    """Others are served all the while; each is hung up on when its time is over."""
    with serving(toy.app, Settings(limits=Limits(header_seconds=3))) as served, contextlib.ExitStack() as stack:
        slow = []
        for _ in range(200):
            slow.append(stack.enter_context(served.connect()))
            slow[-1].sendall(b"GET / HT")
        eventually(lambda: len(served.server.server_state.connections) == 200)
        assert served.ask("GET", "/v1/models").status == 200
        for connection in slow:
            assert reply(heard(connection)).error()["code"] == "headers_too_slow"
        eventually(lambda: not served.server.server_state.connections, 10)


# Readers


def test_a_client_that_does_not_read(served: Served, toy: Toy, caplog):
    left = toy.left
    with served.connect() as connection:
        begun = time.monotonic()
        connection.sendall(b"GET /v1/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: toy.left > left, 8)
        assert time.monotonic() - begun > 0.25
        eventually(lambda: not served.server.server_state.connections)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_client_that_reads(served: Served, toy: Toy):
    """However much there is to read."""
    left = toy.left
    with served.connect() as connection:
        connection.sendall(b"GET /v1/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert connection.recv(1 << 16)
            time.sleep(0.002)
        assert toy.left == left
    eventually(lambda: toy.left > left)


def test_an_answer_that_is_never_fetched(served: Served, toy: Toy):
    """It is written whole at once; the connection is not kept for it for ever."""
    with who_reads_little(served) as connection:
        connection.sendall(b"GET /v1/large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        eventually(lambda: served.server.server_state.connections)
        eventually(lambda: not served.server.server_state.connections, 10)


def test_closing_with_connections_of_all_kinds(toy: Toy):
    begun = time.monotonic()
    with serving(toy.app, Settings(limits=Limits(connections=3))) as served, contextlib.ExitStack() as stack:
        for data in (MARKER, b"GET", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", MARKER):
            stack.enter_context(served.connect()).sendall(data)
        time.sleep(0.1)
    assert time.monotonic() - begun < 5
