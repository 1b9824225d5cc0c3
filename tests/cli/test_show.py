"""How results are written."""

from __future__ import annotations

import json

import pytest

from paligemma.cli.show import as_json, as_text
from paligemma.results import Answer, Box, Detections

ONE, TWO = Box("cat", 1, 2, 30, 40, 0.9), Box("a\x1b[31mdog", 5, 6, 7, 8)


@pytest.mark.parametrize(
    ("result", "name", "text"),
    [
        (Answer("two"), None, "two"),
        (Answer("two"), "a.jpg", "a.jpg: two"),
        (Answer("two\nlines"), "a.jpg", "a.jpg:\n  two\n  lines"),
        (Answer(""), "a.jpg", "a.jpg: "),
        (Detections((ONE,), 50, 50), None, "cat  x 1-30, y 2-40  90%"),
        (Detections((), 50, 50), "a.jpg", "a.jpg: nothing found"),
        (Detections((ONE, TWO), 50, 50), "a\n.jpg", "a\\n.jpg:\n  cat  x 1-30, y 2-40  90%\n  a\\x1b[31mdog  x 5-7, y 6-8"),
    ],
)
def test_text(result, name, text):
    assert as_text(result, name) == text


@pytest.mark.parametrize("text", ["plain", "naïve 猫", "two\nlines", "\x7f\x9b31m", "\u2028\u2029", "bad\udcff", '"quoted\\"'])
def test_json_is_one_harmless_line_and_keeps_the_text(text):
    line = as_json({"text": text})
    assert json.loads(line) == {"text": text}
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    line.encode("utf-8")
