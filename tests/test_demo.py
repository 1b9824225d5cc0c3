"""The demonstration: reading its list, judging answers, the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.demo import HONEST, Album, Answered, Item, agrees, answer, pictures
from paligemma.errors import InputError
from paligemma.mask_formats import compress, run_lengths
from paligemma.results import Box, Caption, Detections, Mask, Masks

SIZE = (40, 30)
BOX = [4, 5, 20, 25]
WHOLE = np.zeros(SIZE[::-1], bool)
WHOLE[5:25, 4:20] = True
ITEMS = [
    {"task": "caption", "lang": "de", "expect": "eine Katze & ein <Hund>"},
    {"task": "ask", "question": 'how many "cats"?', "expect": "1"},
    {"task": "detect", "classes": ["cat", "dog"], "expect": {"cat": [BOX]}},
    {"task": "segment", "classes": ["cat"], "expect": {"cat": [{"box": BOX, "mask": compress(run_lengths(WHOLE))}]}},
    {"task": "describe_box", "box": BOX, "expect": "a cat"},
    {"task": "ocr", "expect": "HELLO\nYOU"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", SIZE, "orange").save(tmp_path / "scene.png")
    (tmp_path / "demo.json").write_text(json.dumps([{"image": "scene.png", "items": ITEMS}]), encoding="utf-8")
    return tmp_path


class Knowing:
    """Says what is expected, but counts wrong."""

    def encode(self, image):
        self.image = image
        return "encoded"

    def __getattr__(self, task):
        def ask(image, **arguments):
            assert image == "encoded", "the picture is encoded once and then reused"
            found = Box("cat", *BOX, score=0.9)
            match task:
                case "detect":
                    return Detections((found,), *SIZE)
                case "segment":
                    return Masks((Mask("cat", found, WHOLE),), *SIZE)
                case "ask":
                    return Caption("7")
            return Caption(next(item["expect"] for item in ITEMS if item["task"] == task))

        return ask


class Page(HTMLParser):
    """What a browser would see: text, pictures, links to anything outside."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.images, self.outside, self.ids = "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.outside += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]

    def handle_data(self, data):
        self.text += data


def make_page(folder: Path, out: Path, caveats: tuple[str, ...] = ()) -> tuple[list[Answered], Page]:
    album = Album(out)
    (picture,) = pictures(folder)
    answers = list(answer(Knowing(), picture))  # pyright: ignore[reportArgumentType]
    album.add(picture, answers)
    return answers, Page(album.finish("a model\nof some size", caveats).read_text(encoding="utf-8"))


def test_the_page_holds_everything_and_needs_nothing(folder, tmp_path):
    answers, page = make_page(folder, tmp_path / "out")
    assert [answered.right for answered in answers] == [True, False, True, True, True, True]
    assert page.outside == []
    assert len(page.images) == 3, "the picture, boxes, masks"
    assert all(image["alt"] for image in page.images)
    for said in (
        "eine Katze & ein <Hund>",
        'how many "cats"?',
        "HELLO\nYOU",
        "expected: ",
        "5 of 6 answers are as expected",
        "a model; of some size",
    ):
        assert said in page.text


def test_what_to_know_about_the_bundled_model_is_said_of_no_other(folder, tmp_path):
    assert HONEST[0] in make_page(folder, tmp_path / "bundled", HONEST)[1].text
    assert HONEST[0] not in make_page(folder, tmp_path / "other")[1].text


def test_files_beside_the_page(folder, tmp_path):
    make_page(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.html",
        "scene-3-detect.png",
        "scene-4-segment.png",
        "scene.png",
    ]
    drawn = Image.open(tmp_path / "out" / "scene-3-detect.png").convert("RGB")
    assert len(drawn.getcolors(1 << 20) or []) > 1, "nothing is drawn on the plain picture"


def test_the_commands_on_the_page_ask_the_same(folder, call_arguments):
    (picture,) = pictures(folder)
    assert [call_arguments(item.command("scene.png")) for item in picture.items] == [
        ("caption", (), {"lang": "de", "length": "normal"}),
        ("ask", ('how many "cats"?',), {"lang": "en"}),
        ("detect", (["cat", "dog"],), {}),
        ("segment", (["cat"],), {}),
        ("describe_box", ((4.0, 5.0, 20.0, 25.0),), {}),
        ("ocr", (), {}),
    ]


@pytest.fixture
def call_arguments(folder, monkeypatch):
    """What a command line makes the predictor do."""
    import shlex

    import paligemma
    from paligemma.cli import main

    monkeypatch.chdir(folder)
    asked = []

    class Model:
        def __getattr__(self, task):
            def method(inputs, *arguments, **options):
                words = {name: value for name, value in options.items() if name in ("lang", "length")}
                asked.append((task, arguments, words))
                return [Caption("") for _ in inputs]

            return method

    monkeypatch.setitem(vars(paligemma), "load", lambda *_, **__: Model())

    def run(command: str):
        asked.clear()
        program, *arguments = shlex.split(command)
        assert program == "paligemma"
        assert main(arguments) == 0
        return asked[0]

    return run


CAT, MOVED, FAR = Box("cat", 0, 0, 10, 10), Box("cat", 2, 0, 12, 10), Box("cat", 8, 0, 18, 10)


@pytest.mark.parametrize(
    ("found", "expect", "right"),
    [
        ([CAT], {"cat": [[0, 0, 10, 10]]}, True),
        ([MOVED], {"cat": [[0, 0, 10, 10]]}, True),
        ([FAR], {"cat": [[0, 0, 10, 10]]}, False),
        ([Box("dog", 0, 0, 10, 10)], {"cat": [[0, 0, 10, 10]]}, False),
        ([], {"cat": [[0, 0, 10, 10]]}, False),
        ([CAT, FAR], {"cat": [[0, 0, 10, 10]]}, False),
        ([CAT], {"cat": [[0, 0, 10, 10], [0, 0, 10, 10]]}, False),
        ([FAR, CAT], {"cat": [[0, 0, 10, 10], [8, 0, 18, 10]]}, True),
        ([], {}, True),
    ],
)
def test_boxes_agree_where_each_has_its_partner(found, expect, right):
    assert agrees(Detections(tuple(found), 40, 40), expect) is right


@pytest.mark.parametrize(("text", "right"), [("1", True), ("one", False), ("", False)])
def test_texts_agree_where_they_are_equal(text, right):
    assert agrees(Caption(text), "1") is right


@pytest.mark.parametrize(
    "text", ["[", "{}", '[{"image": "scene.png"}]', '[{"image": "scene.png", "items": [{"task": "ocr"}]}]', "[1]", "7"]
)
def test_a_list_of_another_form_is_refused(text, folder):
    (folder / "demo.json").write_text(text)
    with pytest.raises(InputError, match=re.escape("demo.json")):
        pictures(folder)


def test_masks_agree_where_their_shapes_do():
    """A right box does not excuse a wrong mask."""
    expect = {"cat": [{"box": BOX, "mask": compress(run_lengths(WHOLE))}]}
    half, third = WHOLE.copy(), WHOLE.copy()
    half[15:] = False
    third[11:] = False
    for mask, right in ((WHOLE, True), (half, True), (third, False), (~WHOLE, False), (np.zeros_like(WHOLE), False)):
        assert agrees(Masks((Mask("cat", Box("cat", *BOX), mask),), *SIZE), expect) is right
    assert not agrees(Detections((Box("cat", *BOX),), *SIZE), expect), "a box is no mask"
    assert not agrees(Masks((Mask("dog", Box("dog", *BOX), WHOLE),), *SIZE), expect)


def test_titles_are_for_people():
    assert Item("caption", {"lang": "de"}, "").title == "caption, de"
    assert Item("detect", {"classes": ["cat", "dog"]}, {}).title == "detect cat ; dog"
    assert Item("describe_box", {"box": [1, 2, 3, 4]}, "").title == "what is in 1, 2, 3, 4?"
