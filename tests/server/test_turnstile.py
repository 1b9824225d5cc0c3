"""What is plain means the same to h11; all else is not plain."""

from __future__ import annotations

import h11
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from paligemma.server.protocol import _Strict
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


VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8).map(str.strip)
NAMES = st.sampled_from(["Accept", "X-A", "x-b", "Authorization", "a!#$%&'*+.^_`|~1", "Content-Type"])
PLAIN = st.tuples(NAMES, VALUES).map(lambda line: f"{line[0]}: {line[1]}\r\n".encode())
ODD = st.sampled_from(
    [b"Content-Length: 17\r\n", b"Transfer-Encoding: chunked\r\n", b" a: b\r\n", b"A : b\r\n", b"A:b\r\n", b"X: \t y\r\n", b"\n"]
)
TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12).map(lambda rest: b"/" + rest.encode())


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A head, mostly a plain one, and a body: of these at most one byte is another or stands in between."""
    length = draw(st.integers(0, 40))
    lines = [
        HOST,
        b"Content-Length: %d\r\n" % length,
        *draw(st.lists(PLAIN, max_size=3, unique_by=lambda line: line.partition(b":")[0].lower())),
    ]
    lines += draw(st.lists(ODD, max_size=1)) if draw(st.integers(0, 4)) == 0 else []
    data = b"POST " + draw(TARGETS) + b" HTTP/1.1\r\n" + b"".join(draw(st.permutations(lines))) + b"\r\n" + b"*" * length
    if draw(st.integers(0, 2)) == 0:
        place, instead = draw(st.integers(0, len(data))), draw(st.integers(0, 1))
        data = data[:place] + draw(st.sampled_from([b"\r", b"\n", b"\0", b" ", b":", b"\t", b"\x80", b"5", b"x"])) + data[place + instead :]
    return data


NEXT = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"


@given(requests())
@settings(max_examples=400)
def test_h11_sees_the_same_request(data: bytes):
    """And the same one behind it."""
    found = plain(data + NEXT)
    event("plain" if found else "not plain")
    if found is None:
        return
    theirs = _Strict(h11.SERVER)
    theirs.receive_data(data + NEXT)
    request = theirs.next_event()
    assert isinstance(request, h11.Request)
    assert list(request.headers) == found.scope["headers"]
    assert request.target.partition(b"?")[::2] == (found.scope["raw_path"], found.scope["query_string"])
    body = theirs.next_event()
    assert isinstance(body, h11.Data)
    assert body.data == (data + NEXT)[found.size : found.size + found.length]
    end = theirs.next_event()
    assert isinstance(end, h11.EndOfMessage)
    assert theirs.trailing_data[0] == (data + NEXT)[found.size + found.length :]


def test_most_of_these_are_plain():
    """Else nothing would be compared."""
    seen: list[bool] = []

    @given(requests())
    @settings(max_examples=100, database=None, derandomize=True)
    def look(data: bytes) -> None:
        seen.append(plain(data + NEXT) is not None)

    look()
    assert sum(seen) > len(seen) / 3
