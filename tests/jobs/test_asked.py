"""One spelling for everything that is asked."""

from __future__ import annotations

import pytest

from paligemma.errors import UsageError
from paligemma.jobs.asked import Asked, all_asked, asked


@pytest.mark.parametrize(
    ("spelling", "verb", "what", "normal"),
    [
        ("caption", "caption", (), "caption"),
        ("caption:de", "caption", ("de",), "caption:de"),
        ("caption: de : short", "caption", ("de", "short"), "caption:de:short"),
        ("caption:DE", "caption", ("de",), "caption:de"),
        ("detect:cat;dog", "detect", (("cat", "dog"),), "detect:cat;dog"),
        (" detect : cat ; dog ", "detect", (("cat", "dog"),), "detect:cat;dog"),
        ("segment:the cat on the left", "segment", (("the cat on the left",),), "segment:the cat on the left"),
        ("refer:the man in red", "refer", ("the man in red",), "refer:the man in red"),
        ("ask:what is it: a cat?", "ask", ("what is it: a cat?",), "ask:what is it: a cat?"),
        ("question:two", "question", ("two",), "question:two"),
        ("ocr", "ocr", (), "ocr"),
        ("run:  as it is ", "run", ("  as it is ",), "run:  as it is "),
    ],
)
def test_what_is_asked(spelling, verb, what, normal):
    found = asked(spelling)
    assert found == Asked(verb, what)
    assert str(found) == normal
    assert asked(normal) == found


@pytest.mark.parametrize(
    ("spelling", "says"),
    [
        ("capton", "did you mean 'caption'"),
        ("describe_box:1,2,3,4", "tasks: caption"),
        ("", "tasks: caption"),
        ("detect", "name"),
        ("detect:;", "name"),
        ("ask", "question"),
        ("caption:", "nothing stands behind the colon"),
        ("caption:xx", "language"),
        ("caption:de:huge", "huge"),
        ("caption:de:short:more", "language and a length"),
        ("ocr:en", "asked with nothing"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_done(spelling, says):
    with pytest.raises(UsageError) as raised:
        asked(spelling)
    assert says in f"{raised.value.message} {raised.value.hint}"


def test_each_once_and_one_at_least():
    with pytest.raises(UsageError, match="no task"):
        all_asked([])
    with pytest.raises(UsageError, match="twice"):
        all_asked(["detect:cat;dog", "caption", "detect: cat ; dog"])
    assert [str(one) for one in all_asked(["ocr", "caption"])] == ["ocr", "caption"]


def test_the_verb_is_called_with_lists():
    class Predictor:
        def detect(self, pictures, names, **how):
            return [(picture, names, how) for picture in pictures]

    assert asked("detect:a;b").ask(Predictor(), (1, 2), beams=3) == [(1, ["a", "b"], {"beams": 3}), (2, ["a", "b"], {"beams": 3})]  # type: ignore[arg-type]
