"""Text from outside, fit for a terminal: what could steer it, or break or reorder its lines, becomes an escape."""

from __future__ import annotations

import unicodedata

STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, formats (direction marks among them), bytes that are no text, line and paragraph ends."""
JOINERS = "\u200c\u200d"
"""Formats that words of several languages and many emoji are spelt with."""


def printable(text: str, keep: str = "") -> str:
    """`text` with steering characters, other than those in `keep`, as escapes such as `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text

    def shown(c: str) -> str:
        steers = unicodedata.category(c) in STEERING and c not in JOINERS and c not in keep
        return c.encode("unicode_escape").decode() if steers else c

    return "".join(map(shown, text))
