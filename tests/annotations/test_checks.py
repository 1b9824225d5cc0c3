"""What an annotation may say: tables of values, each with the fault it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.data import checks
from paligemma.data.outlines import Polygons, RunLengths
from paligemma.data.records import Flaw
from paligemma.mask_formats import compress, run_lengths
from tests.annotations.world import SIZE, ellipse

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 64, 48), (0, 0, 64, 48)),
        ((1.5, 2.5, 3.25, 4), (1.5, 2.5, 3.25, 4)),
        ((-1, -2, 66, 49.5), (0, 0, 64, 48)),  # rounding
        ((10, 10, 10.1, 10.2), (10, 10, 10.1, 10.2)),
    ],
)
def test_boxes(box, expected):
    assert checks.box(box, SIZE) == expected


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 5, 20), (10, 20, 20, 10), (10, 10, 10, 20), (10, 10, 20, 10), (-3, 0, 10, 10), (0, -50, 10, 10), (0, 0, 66.1, 10),
        (0, 0, 10, 60), (100, 100, 120, 120), (NAN, 0, 10, 10), (0, 0, INF, 10), (0, 0, 10, -INF), (0, 0, 10**400, 10), (-2, 5, -1, 9),
        (64, 5, 66, 9),
    ],
)  # fmt: skip
def test_boxes_that_are_none(box):
    with pytest.raises(Flaw) as caught:
        checks.box(box, SIZE)
    assert caught.value.code == "box"


def test_a_box_inside_out_is_called_so():
    with pytest.raises(Flaw, match="inside out"):
        checks.box((10, 10, 5, 20), SIZE)
    with pytest.raises(Flaw, match="no area"):
        checks.box((10, 10, 10, 20), SIZE)


@given(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4))
def test_a_box_lies_in_its_picture_or_is_a_flaw(box):
    try:
        x0, y0, x1, y1 = checks.box(box, SIZE)
    except Flaw as flaw:
        assert flaw.code == "box"  # noqa: PT017
    else:
        assert 0 <= x0 < x1 <= 64
        assert 0 <= y0 < y1 <= 48


@pytest.mark.parametrize(
    ("label", "expected"), [("cat", "cat"), ("  big \n cat ", "big cat"), ("Käfig 猫", "Käfig 猫"), (3, "3"), ("a<b>", "a<b>")]
)
def test_labels(label, expected):
    assert checks.label(label) == expected


@pytest.mark.parametrize(
    "label",
    ["", "  ", None, True, ["cat"], "cat; dog", "<loc0001>", "<image>", "a <eos> b", "<seg001>", "<unused12>", "x" * 257, {"name": "cat"}],
)
def test_labels_that_are_none(label):
    with pytest.raises(Flaw) as caught:
        checks.label(label)
    assert caught.value.code == "label"


def test_half_characters():
    for check in (checks.label, checks.prompt, checks.answer):
        with pytest.raises(Flaw) as caught:
            check("a\ud800b")
        assert caught.value.code == "encoding"


def test_prompts_and_answers():
    assert checks.prompt(" answer en why? ") == " answer en why? "
    assert checks.answer(7) == "7"
    assert checks.answer("", empty=True) == ""
    assert checks.answer("<eos> is a token, and <image> is one") == "<eos> is a token, and <image> is one"
    for check, value, code in [
        (checks.prompt, "<image>caption en", "field"),
        (checks.prompt, " <bos>caption en", "field"),
        (checks.prompt, " ", "field"),
        (checks.prompt, None, "field"),
        (checks.answer, "a cat<eos>", "answer"),
        (checks.answer, " \n", "answer"),
        (checks.answer, None, "answer"),
        (checks.answer, False, "answer"),
    ]:
        with pytest.raises(Flaw) as caught:
            check(value)
        assert caught.value.code == code


SQUARE = ((1, 1), (9, 1), (9, 9), (1, 9))


@pytest.mark.parametrize(
    "rings", [[[1, 1, 9, 1, 9, 9, 1, 9]], [1, 1, 9, 1, 9, 9, 1, 9], [[1, 1], [9, 1], [9, 9], [1, 9]], [[[1, 1], [9, 1], [9, 9], [1, 9]]]]
)
def test_rings_in_every_spelling(rings):
    assert checks.polygons(rings) == Polygons((SQUARE,))


@pytest.mark.parametrize(
    "rings",
    [
        [], None, "M 1 1", {"x": 1}, [[1, 1, 9, 9]], [[1, 1, 9, 1, 9]], [[1, 1, 9, 1, 9, NAN]], [[1, 1, 9, 1, 9, None]],
        [[1, 1, 5, 5, "9", 9]], [[1, 1], [9, 1]], [[1, 1, 9, 1, 5, 1]], [[2, 1, 2, 5, 2, 9]],
        [[1, 1, 1e9, 1, 9, 9]], [[1, 1, 10**400, 1, 9, 9]],
        [[1, 1, 9, 1, 9, 9], [1, 2]], [[[1, 1], [9, 1, 3], [9, 9]]],
    ],
)  # fmt: skip
def test_rings_that_are_none(rings):
    with pytest.raises(Flaw) as caught:
        checks.polygons(rings)
    assert caught.value.code == "outline"


MASK = ellipse((4, 6, 20, 30))
COUNTS = run_lengths(MASK)


@pytest.mark.parametrize("counts", [COUNTS, compress(COUNTS), compress(COUNTS).encode()])
def test_run_lengths(counts):
    outline = checks.run_lengths({"size": [48, 64], "counts": counts}, SIZE)
    assert (outline.mask(64, 48) == MASK).all()


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [64, 48], "counts": COUNTS}, {"size": [48], "counts": COUNTS}, {"counts": COUNTS}, {"size": [48, 64]},
        {"size": [48, 64], "counts": COUNTS[:-1]}, {"size": [48, 64], "counts": [*COUNTS[:-1], -1]},
        {"size": [48, 64], "counts": compress(COUNTS)[:-2]},
        {"size": [48, 64], "counts": "ö"}, {"size": [48, 64], "counts": [48 * 64]}, {"size": [48, 64], "counts": [1.5, 2]},
        {"size": [48, 64], "counts": 3}, {"size": ["48", 64], "counts": COUNTS}, {"size": [48, 64], "counts": []},
    ],
)  # fmt: skip
def test_run_lengths_that_are_none(rle):
    with pytest.raises(Flaw) as caught:
        checks.run_lengths(rle, SIZE)
    assert caught.value.code == "outline"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_an_outline_or_a_flaw(value):
    try:
        found = checks.outline(value, SIZE)
    except Flaw as flaw:
        assert flaw.code == "outline"  # noqa: PT017
    else:
        assert found is None or isinstance(found, Polygons | RunLengths)


def test_the_box_around():
    assert checks.around(Polygons((SQUARE, ((-5, 20), (30, 20), (30, 60)))), SIZE) == (0, 1, 30, 48)
    assert checks.around(RunLengths((48, 64), compress(COUNTS)), SIZE) == checks.corners(MASK)
    assert checks.corners(np.zeros((3, 3), bool)) is None
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:6] = True
    assert checks.corners(mask) == (2, 1, 6, 3)
