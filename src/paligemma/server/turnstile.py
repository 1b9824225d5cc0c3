"""Refusals that cost next to nothing: a plain request that is refused for its head is answered before anything is made of it.

At many times what the server can do it is refusals that take the time: a request, a task and an answer made of each, by a thread that the
engine's has to take turns with. What is plain enough to need none of it is read here by one expression, which takes less than HTTP does,
so that both ends of a request are where everyone else sees them. Everything else goes the usual way, and nothing is let in here.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

LONGEST = 1 << 16
"""Bytes of a refused body up to which it is waited for and dropped: an answer that comes before it may be lost on its way."""

_LINE = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [!-~](?:[ -~]*[!-~])?\r\n"
_HEAD = re.compile(rb"POST (/[!-~]*) HTTP/1\.1\r\n((?:" + _LINE + rb")+)\r\n")
_NOT_PLAIN = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer"})
"""With these more follows than a body of so many bytes."""


class Plain(NamedTuple):
    """The head of a request. `size`: its own bytes; `length`: those of the body that follows."""

    scope: dict[str, object]
    size: int
    length: int


def plain(data: bytes) -> Plain | None:
    """The request that begins here, as ASGI has it; None where it is anything but plain, or where not all of its head is here."""
    head = _HEAD.match(data)
    if head is None:
        return None
    target, lines = head.groups()
    headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines.splitlines())]
    known = dict(headers)
    length = known.get(b"content-length", b"")
    if len(known) < len(headers) or not _NOT_PLAIN.isdisjoint(known) or known.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    if b"host" not in known or not length.isdigit() or len(length) > 9 or not 0 < int(length) <= LONGEST:
        return None
    path, _, query = target.partition(b"?")
    scope: dict[str, object] = {
        "type": "http",
        "method": "POST",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
    }
    return Plain(scope, head.end(), int(length))
