"""Drawings: the right pixels change, nothing leaves the picture, and any text can be written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paligemma import drawing
from paligemma.drawing import COLOURS, MIN_SIDE, HeatMap, Shape, draw_heat, draw_shapes, draw_text


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def changed(picture: Image.Image) -> np.ndarray:
    return (np.asarray(picture) != 128).any(-1)


def test_the_picture_given_is_left_alone():
    original = grey(600, 600)
    drawn = draw_shapes(original, [Shape("cat", (10, 10, 100, 100))])
    assert not changed(original).any()
    assert changed(drawn).any()
    assert draw_shapes(original, []) is not original


def test_a_box_is_drawn_on_its_edge_and_its_inside_stays():
    drawn = changed(draw_shapes(grey(600, 600), [Shape("", (100, 200, 300, 400))]))
    assert drawn[200, 100:300].all()
    assert drawn[400, 100:300].all()
    assert drawn[200:400, 100].all()
    assert drawn[200:400, 300].all()
    assert not drawn[210:390, 110:290].any()
    assert not drawn[:200].any()
    assert not drawn[401:].any()


def test_a_mask_is_tinted_and_outlined():
    mask = np.zeros((600, 600), bool)
    mask[100:300, 200:400] = True
    picture = np.asarray(draw_shapes(grey(600, 600), [Shape("", (0, 0, 599, 599), mask=mask)]))
    assert tuple(picture[200, 200]) == COLOURS[0]  # the edge
    inside = picture[200, 300].astype(int)
    assert np.abs(inside - 128).sum() / np.abs(np.array(COLOURS[0]) - 128).sum() == pytest.approx(drawing.FILL / 255, abs=0.02)
    assert tuple(picture[50, 300]) == (128, 128, 128)


@pytest.mark.parametrize("size", [(112, 112), (30, 200), (1, 1), (511, 3)])
def test_small_pictures_are_enlarged(size):
    drawn = draw_shapes(grey(*size), [Shape("cat", (0, 0, *size), "90%")])
    assert max(drawn.size) == MIN_SIDE
    assert draw_text(grey(*size), "two cats").width >= MIN_SIDE


def test_large_pictures_keep_their_size():
    assert draw_shapes(grey(900, 600), [Shape("cat", (0, 0, 9, 9))]).size == (900, 600)
    under = draw_text(grey(900, 600), "two cats", title="caption en", note="90%")
    assert under.width == 900
    assert not changed(under.crop((0, 0, 900, 600))).any()
    assert (np.asarray(under)[600:] < 100).any()


boxes = st.tuples(*[st.floats(-50, 700)] * 4)


@given(st.lists(st.tuples(st.text(max_size=30), boxes), max_size=6), st.integers(1, 700), st.integers(1, 700))
@settings(max_examples=30)
def test_anything_can_be_drawn(items, width, height):
    drawn = draw_shapes(grey(width, height), [Shape(label, box, "50%") for label, box in items])
    assert drawn.mode == "RGB"
    draw_text(grey(width, height), "\n".join(label for label, _ in items), title="x")


@pytest.mark.parametrize("box", [(0, 0, 600, 600), (580, 0, 600, 20), (0, 590, 5, 600), (590, 590, 600, 600), (-9, -9, 9, 9)])
@pytest.mark.parametrize("label", ["cat", "a very long label " * 9])
def test_labels_stay_in_the_picture(box, label):
    picture = grey(600, 600)
    left, top, right, bottom = drawing._tag(picture, label, box, COLOURS[0], 2, [], [])
    assert 0 <= left < right <= 599
    assert 0 <= top < bottom <= 599
    assert changed(picture)[round(top) : round(bottom), round(left) : round(right)].mean() > 0.9


def test_labels_do_not_cover_each_other():
    taken: list = []
    for _ in range(5):
        taken.append(drawing._tag(grey(600, 600), "cat", (200, 200, 400, 400), COLOURS[0], 2, [], taken))
    assert not any(drawing._common(a, b) for a, b in itertools.combinations(taken, 2))


def test_colours_differ_by_label():
    shapes = [Shape(label, (20, 20 + 90 * i, 500, 80 + 90 * i)) for i, label in enumerate(["cat", "dog", "cat"])]
    picture = np.asarray(draw_shapes(grey(600, 600), shapes))
    cat, dog, other = (tuple(picture[50 + 90 * i, 22]) for i in range(3))
    assert cat == other != dog
    assert len(set(COLOURS)) == len(COLOURS) >= 12


@pytest.mark.parametrize("colour", COLOURS)
def test_writing_is_readable_on_every_colour(colour):
    """WCAG 2.1 asks for a contrast of 4.5."""

    def luminance(rgb):
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(colour), luminance(drawing._contrast(colour))))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_characters_without_a_glyph_are_written_as_what_they_are(monkeypatch):
    monkeypatch.setattr(drawing, "_font_files", lambda: ())
    font, text = drawing._fitting("Käfig 猫 x\x07 两只猫和狗", 20)
    assert text == "Kafig U+732B xU+0007 [5 characters that no font here has]"
    assert not drawing._lacking(font, text)


def test_titles_of_maps_that_no_font_can_write_are_left_out(monkeypatch):
    monkeypatch.setattr(drawing, "_font_files", lambda: ())

    def page(above: str, *titles: str) -> bytes:
        maps = [HeatMap(title, ((0.1, 0.2), (0.3, 0.4)), "97%") for title in titles]
        return draw_heat(grey(64, 48), maps, title=above).tobytes()

    assert page("détecte 猫", "猫头鹰", "héron") == page("", "", "heron")
    assert page("detect owl", "owl") not in (page("", "owl"), page("detect owl", ""))


def test_a_font_with_the_characters_is_found():
    paths = [path for path in drawing._font_files() if path.endswith("-Regular.ttf") and "/" in path]
    assert paths, "the test extra installs font packages"
    font, text = drawing._fitting("Käfig", 20)
    assert text == "Käfig"
    assert not drawing._lacking(font, text)


def test_wrapping():
    font = drawing._default_font(20)
    lines = drawing._wrap("a sentence that is too long for one line " + "x" * 60, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == "asentencethatistoolongforoneline" + "x" * 60
    assert drawing._wrap("short", font, 200) == ["short"]
