"""Prompts as a table of strings (spec: the reference's prompts), and the round trip target -> parse of every task."""

from __future__ import annotations

import pytest

from paligemma.errors import UsageError
from paligemma.results import Result
from paligemma.tasks import TASKS
from paligemma.tasks.languages import LANGUAGES

BINS = (1, 20, 300, 1023)
CODES = tuple(range(112, 128))


@pytest.mark.parametrize(
    ("task", "arguments", "expected"),
    [
        ("caption", {}, "caption en"),
        ("caption", {"lang": "de"}, "caption de"),
        ("caption", {"lang": "zh", "length": "short"}, "cap zh"),
        ("caption", {"lang": "en", "length": "long"}, "describe en"),
        ("answer", {"question": " how many dogs? "}, "answer en how many dogs?"),
        ("answer", {"question": "wie viele?", "lang": "de"}, "answer de wie viele?"),
        ("answer", {"question": "What is the total?", "lang": None}, "What is the total?"),
        ("answer", {"question": "which?", "choices": ["a", "b c"]}, "answer en  which? choose from: a \t b c"),
        ("answer", {"question": "which?", "choices": "a; b c"}, "answer en  which? choose from: a \t b c"),
        ("question", {"answer": "two", "lang": "fr"}, "question fr two"),
        ("ocr", {}, "ocr"),
        ("detect", {"classes": ["cat", "dog"]}, "detect cat ; dog"),
        ("detect", {"classes": "cat;dog ; the  big cat;cat"}, "detect cat ; dog ; the big cat"),
        ("detect", {"classes": "person's hat"}, "detect person's hat"),
        ("segment", {"classes": "the cat on the left"}, "segment the cat on the left"),
        ("refer", {"sentence": "man in red "}, "man in red"),
        ("describe_box", {"box": (0.0, 0.25, 0.5, 1.0)}, "caption <loc0000><loc0256><loc0512><loc1023>"),
        ("run", {"text": " anything at all\n"}, " anything at all\n"),
        ("run", {"text": ""}, ""),
    ],
)
def test_prompts(task, arguments, expected):
    assert TASKS[task].prompt(**arguments) == expected


@pytest.mark.parametrize(
    ("task", "arguments", "said"),
    [
        ("caption", {"lang": "english"}, "'english'"),
        ("caption", {"length": "tiny"}, "tiny"),
        ("answer", {"question": "  "}, "empty"),
        ("question", {"answer": ""}, "empty"),
        ("question", {"answer": "two", "lang": "xx"}, "'xx'"),
        ("detect", {"classes": []}, "no name"),
        ("detect", {"classes": " ; "}, "no name"),
        ("detect", {"classes": ["cat ; dog"]}, "separate"),
        ("segment", {"classes": ["<loc0001>"]}, "separate"),
        ("refer", {"sentence": ""}, "empty"),
    ],
)
def test_what_cannot_be_asked(task, arguments, said):
    with pytest.raises(UsageError, match=said):
        TASKS[task].prompt(**arguments)


@pytest.mark.parametrize(("lang", "guess"), [("eng", "en"), ("de-AT", "de"), ("ZH_cn", "zh"), ("german", None), ("swedish", None)])
def test_a_close_language_is_suggested_and_no_other(lang, guess):
    with pytest.raises(UsageError) as error:
        TASKS["caption"].prompt(lang=lang)
    hint = str(error.value.hint)
    assert f"did you mean {guess!r}?" in hint if guess else "did you mean" not in hint
    assert len(LANGUAGES) == 36


@pytest.mark.parametrize("task", ["caption", "answer", "question", "ocr", "describe_box", "run"])
@pytest.mark.parametrize("text", ["two cats", "eine Käfig-Tür", "猫", "a ; b", "line one\nline two", ""])
def test_text_survives_target_and_parse(task, text):
    assert TASKS[task].parse(TASKS[task].target(text)) == text


@pytest.mark.parametrize("items", [[], [("cat", BINS)], [("cat", BINS), ("person's hat", (0, 0, 1, 1)), ("cat", (5, 5, 6, 6))]])
def test_boxes_survive_target_and_parse(items):
    parsed = TASKS["detect"].parse(TASKS["detect"].target(items))
    assert [(o.label, o.bins) for o in parsed.objects] == items
    assert (parsed.leftover, parsed.invalid) == ("", 0)


def test_masks_survive_target_and_parse():
    items = [("cat", BINS, CODES), ("the dog on the left", (0, 0, 1, 1), CODES[::-1])]
    parsed = TASKS["segment"].parse(TASKS["segment"].target(items))
    assert [(o.label, o.bins, o.codes) for o in parsed.objects] == items
    (found,) = TASKS["refer"].parse(TASKS["refer"].target(BINS, CODES), "man in red").objects
    assert (found.label, found.bins, found.codes) == ("man in red", BINS, CODES)


def test_targets_as_strings():
    assert TASKS["detect"].target([("cat", (1, 2, 30, 4)), ("dog", BINS)]) == (
        "<loc0001><loc0002><loc0030><loc0004> cat ; <loc0001><loc0020><loc0300><loc1023> dog"
    )
    assert TASKS["detect"].target([("cat", BINS), ("dog", BINS)], classes=["dog", "cat"]).endswith("cat")
    assert TASKS["refer"].target(BINS, CODES) == "<loc0001><loc0020><loc0300><loc1023>" + "".join(f"<seg{c}>" for c in CODES)
    assert TASKS["detect"].target([]) == ""


def test_the_dict_of_tasks():
    for key, task in TASKS.items():
        assert task.name == key
        assert issubclass(task.result, Result)


@pytest.mark.parametrize("value", [None, 3, ["a"], b"text"])
@pytest.mark.parametrize("task", ["answer", "question", "refer", "run"])
def test_what_is_no_text_is_named(task, value):
    with pytest.raises(UsageError, match=f"must be text, found {type(value).__name__}"):
        TASKS[task].prompt(value)


@pytest.mark.parametrize(("classes", "found"), [(None, "NoneType"), (3, "int"), (["cat", None], "NoneType")])
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_names_that_are_no_text_are_named(task, classes, found):
    with pytest.raises(UsageError, match=f"found {found}"):
        TASKS[task].prompt(classes)
