"""What prompts begin with -> what is offered."""

from __future__ import annotations

import pytest

from paligemma.tasks import TASKS, caption
from paligemma.tasks.languages import LANGUAGES
from paligemma.tasks.taught import Offer, offers

ENGLISH = Offer(("en",))


def test_of_a_model_that_says_nothing_everything_is_offered():
    found = offers()
    assert found.keys() == TASKS.keys()
    assert found["caption"] == Offer(LANGUAGES, tuple(caption.LENGTHS))
    assert found["answer"] == found["question"] == Offer(LANGUAGES)
    assert found["detect"] == found["refer"] == found["run"] == Offer()


@pytest.mark.parametrize(
    ("taught", "expected"),
    [
        (["detect"], {"detect": Offer()}),
        (["detect", "ocr"], {"detect": Offer(), "ocr": Offer()}),
        (["answer en"], {"answer": ENGLISH}),
        (["question en"], {"question": ENGLISH}),
        (["caption fil"], {"caption": Offer(("fil",), ("normal",))}),  # and no fi
        (["describe de", "caption de", "cap fr"], {"caption": Offer(("de", "fr"), ("short", "normal", "long"))}),
        (["caption"], {"caption": Offer(LANGUAGES, ("normal",)), "describe_box": Offer()}),  # whatever comes after it
        (["caption <box>"], {"describe_box": Offer()}),
        (["the leftmost"], {}),  # a bare sentence
        (["det"], {}),  # not a word
    ],
)
def test_only_what_was_taught_is_offered(taught, expected):
    assert offers(taught) == {**expected, "run": Offer()}
