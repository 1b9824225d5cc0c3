"""What a record teaches: the tasks' own texts, the asked classes, one of several answers, and back through the parsers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paligemma.data.lessons import MOST_CLASSES, asked_classes, bins_of, lesson
from paligemma.data.outlines import Polygons
from paligemma.data.records import Record, Thing
from paligemma.errors import UsageError
from paligemma.tasks import detect, refer, segment

SIZE = (200, 100)
OUTLINE = Polygons((((20.0, 10.0), (60.0, 10.0), (60.0, 90.0)),))
CAT, DOG = Thing("cat", (20.0, 10.0, 60.0, 90.0), OUTLINE), Thing("dog", (100.0, 50.0, 199.0, 99.0))


def record(task: str, **more) -> Record:
    return Record("a", task, (Path("a.png"),), "line 1", **more)


def codes(mask: np.ndarray) -> tuple[int, ...]:
    assert mask.shape == (64, 64)
    return tuple(range(16))


def test_words_come_as_they_are():
    found = lesson(record("answer", prompt="answer en how many?", answers=("two", "2")), SIZE)
    assert (found.prefix, found.suffix) == ("answer en how many?", "two")


def test_each_of_several_answers_is_drawn():
    three = record("caption", prompt="caption en", answers=("a", "b", "c"))
    rng = np.random.default_rng(0)
    assert {lesson(three, SIZE, rng=rng).suffix for _ in range(50)} == {"a", "b", "c"}


def test_boxes_are_written_in_the_order_of_the_classes_and_read_back():
    found = lesson(record("detect", things=(CAT, DOG)), SIZE, classes=("dog", "bird", "cat"))
    assert found.prefix == "detect dog ; bird ; cat"
    parsed = detect.parse(found.suffix, ["dog", "bird", "cat"])
    assert [o.label for o in parsed.objects] == ["dog", "cat"]
    x0, y0, x1, y1 = parsed.objects[1].box(*SIZE).xyxy
    assert np.allclose((x0, y0, x1, y1), CAT.box, atol=0.5 * max(SIZE) / 1023)


def test_only_what_is_asked_for_is_written():
    found = lesson(record("detect", things=(CAT, DOG), asked=("cat",)), SIZE, classes=("dog", "cat"))
    assert found.prefix == "detect cat"
    assert [o.label for o in detect.parse(found.suffix).objects] == ["cat"]
    assert lesson(record("detect", things=(), asked=("cat",)), SIZE).suffix == ""


def test_masks_are_written_with_the_codec():
    found = lesson(record("segment", things=(CAT,)), SIZE, codes=codes)
    (cat,) = segment.parse(found.suffix).objects
    assert (cat.label, cat.codes, cat.bins) == ("cat", tuple(range(16)), bins_of(CAT.box, SIZE))
    sentence = lesson(record("refer", things=(CAT,), asked=("the cat",)), SIZE, codes=codes)
    assert sentence.prefix == "the cat"
    assert refer.parse(sentence.suffix, "the cat").objects[0].codes == tuple(range(16))


def test_masks_need_a_codec_and_an_outline():
    with pytest.raises(UsageError, match="codec"):
        lesson(record("segment", things=(CAT,)), SIZE)
    with pytest.raises(ValueError, match="no outline"):
        lesson(record("segment", things=(DOG,)), SIZE, codes=codes)


def test_a_long_list_of_classes_is_cut_to_what_is_there_and_some_that_is_not():
    names = tuple(f"thing {i:03d}" for i in range(90))
    things = (Thing(names[80], DOG.box), Thing(names[3], CAT.box))
    rng = np.random.default_rng(0)
    lists = [asked_classes(record("detect", things=things), names, rng) for _ in range(20)]
    assert all(len(asked) == MOST_CLASSES and {names[3], names[80]} <= set(asked) for asked in lists)
    assert all(list(asked) == sorted(asked) for asked in lists), "in the data set's order"
    assert len(set(lists)) > 10
    crowd = tuple(Thing(name, DOG.box) for name in names[:30])
    assert asked_classes(record("detect", things=crowd), names, rng) == names[:30], "everything that is there is asked for"
