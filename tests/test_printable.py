"""Text from outside cannot steer a terminal; text in any language stays as it is."""

from __future__ import annotations

import pytest

from paligemma.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 猫.jpg", "plain ünïcode 猫.jpg"),
        ("קטה नमस्ते می\u200cخواهم 👩\u200d🚀\u3000\u00a0", "קטה नमस्ते می\u200cخواهم 👩\u200d🚀\u3000\u00a0"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[31mred\x07\x9b", "\\x1b[31mred\\x07\\x9b"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("mark\u200e isolate\u2066", "mark\\u200e isolate\\u2066"),
        ("line\u2028paragraph\u2029", "line\\u2028paragraph\\u2029"),
        ("bad\udcffbyte", "bad\\udcffbyte"),
    ],
)
def test_what_steers_becomes_an_escape(text: str, shown: str):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_line_ends_can_be_kept():
    assert printable("two\nlines\tand\x1b", keep="\n\t") == "two\nlines\tand\\x1b"
