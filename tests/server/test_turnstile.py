"""What is plain means the same to h11; all else is not plain."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paligemma.server.turnstile import LONGEST, plain

HOST, LENGTH = b"Host: localhost\r\n", b"Content-Length: 5\r\n"
FIRST = b"POST /v1/caption?a=%20 HTTP/1.1\r\n"


def test_a_plain_request():
    found = plain(FIRST + b"Host: localhost\r\nContent-length: 5\r\nConnection: keep-alive\r\n\r\n12345GET")
    assert found is not None
    assert (found.size, found.length) == (len(FIRST + HOST + LENGTH) + len("Connection: keep-alive\r\n\r\n"), 5)
    assert found.scope["headers"] == [(b"host", b"localhost"), (b"content-length", b"5"), (b"connection", b"keep-alive")]
    assert (found.scope["path"], found.scope["raw_path"], found.scope["query_string"]) == ("/v1/caption", b"/v1/caption", b"a=%20")


@pytest.mark.parametrize(
    "data",
    [
        b"", FIRST, FIRST + HOST + LENGTH, FIRST + b"\r\n",  # not whole
        b"GET / HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n", b"POST / HTTP/1.0\r\n" + HOST + LENGTH + b"\r\n",
        b"POST * HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n", b"POST http://a/ HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n",
        b"POST  / HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n", b"\r\n" + FIRST + HOST + LENGTH + b"\r\n",
        FIRST + HOST + b"\r\n", FIRST + LENGTH + b"\r\n", FIRST + HOST + HOST + LENGTH + b"\r\n", FIRST + HOST + LENGTH * 2 + b"\r\n",
        FIRST + HOST + b"Content-Length: 5, 5\r\n\r\n", FIRST + HOST + b"Content-Length: +5\r\n\r\n",
        FIRST + HOST + b"Content-Length: 0\r\n\r\n",
        FIRST + HOST + b"Content-Length: %d\r\n\r\n" % (LONGEST + 1), FIRST + HOST + b"Content-Length: " + b"0" * 9 + b"5\r\n\r\n",
        FIRST + HOST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n", FIRST + HOST + LENGTH + b"Expect: 100-continue\r\n\r\n",
        FIRST + HOST + LENGTH + b"Upgrade: websocket\r\n\r\n", FIRST + HOST + LENGTH + b"Trailer: x\r\n\r\n",
        FIRST + HOST + LENGTH + b"Connection: close\r\n\r\n", FIRST + HOST + LENGTH + b" folded: x\r\n\r\n",
        FIRST + HOST + LENGTH + b"X : y\r\n\r\n", FIRST + HOST + LENGTH + b"X: \xe9\r\n\r\n", FIRST + HOST + LENGTH + b"X: a\0b\r\n\r\n",
        FIRST + HOST + LENGTH + b"X: a\nY: b\r\n\r\n", (FIRST + HOST + LENGTH + b"\r\n").replace(b"\r\n", b"\n"),
    ],
)  # fmt: skip
def test_not_plain(data: bytes):
    assert plain(data) is None


LINES = st.sampled_from([
    HOST, LENGTH, b"Content-Length: 17\r\n", b"Transfer-Encoding: chunked\r\n", b"X-A: b c\r\n", b"x: \r\n", b"A:b\r\n", b"A : b\r\n",
    b" a: b\r\n", b"Content-Length: 0x5\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"\n", b"X: \t y\r\n",
])  # fmt: skip


@given(st.lists(LINES, max_size=6), st.integers(0, 200), st.binary(max_size=2))
@example([HOST, LENGTH], 0, b"")
def test_h11_sees_the_same_request(lines: list[bytes], place: int, noise: bytes):
    whole = FIRST + b"".join(lines) + b"\r\n"
    data = whole[:place] + noise + whole[place:]
    found = plain(data + b"*" * 100)
    if found is None:
        return
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(data + b"*" * 100)
    request = theirs.next_event()
    assert isinstance(request, h11.Request)
    assert list(request.headers) == found.scope["headers"]
    assert (request.method, request.http_version) == (b"POST", b"1.1")
    assert request.target.partition(b"?")[::2] == (found.scope["raw_path"], found.scope["query_string"])
    body = theirs.next_event()
    assert isinstance(body, h11.Data)
    assert len(body.data) == min(found.length, len(data) + 100 - found.size)
