"""What is written in a chat, as a task."""

from __future__ import annotations

import pytest

from paligemma.server.prompts import Request, recognise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("caption", Request("caption", ("en", "normal"))),
        ("  caption de\n", Request("caption", ("de", "normal"))),
        ("cap en", Request("caption", ("en", "short"))),
        ("describe fil", Request("caption", ("fil", "long"))),
        ("caption xx", Request("ask", ("caption xx", "en"))),
        ("caption this picture please", Request("ask", ("caption this picture please", "en"))),
        ("detect cat ; dog", Request("detect", ("cat ; dog",))),
        ("segment the cup on the left", Request("segment", ("the cup on the left",))),
        ("detective work?", Request("ask", ("detective work?", "en"))),
        ("ocr", Request("ocr")),
        ("answer es ¿qué es?", Request("ask", ("¿qué es?", "es"))),
        ("answer me this", Request("ask", ("answer me this", "en"))),
        ("What is in this picture?", Request("ask", ("What is in this picture?", "en"))),
        ("<loc0001><loc0002><loc0003><loc0004>", Request("run", ("<loc0001><loc0002><loc0003><loc0004>",))),
    ],
)
def test_tasks_are_recognised(text, expected):
    assert recognise(text) == expected


def test_raw_words_stay_as_they_are():
    assert recognise("detect cat", raw=True) == Request("run", ("detect cat",))
