"""Bars are as tall as their numbers, stand where their lengths are, and stay inside their frame."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.pages.plots import Axes, length_plot

NAMES, LABEL = ("tokens", "records"), "lengths"


def test_bars_are_as_tall_as_their_numbers_and_the_limit_parts_them():
    plot = length_plot([(1, 10, 4), (11, 20, 2), (21, 30, 0), (31, 40, 1)], NAMES, LABEL, size=(560, 150), limit=20)
    svg = ElementTree.fromstring(plot)
    bars = [one for one in svg if (one.get("class") or "").startswith("bar")]
    assert [one.get("class") for one in bars] == ["bar", "bar", "bar over", "bar over"]
    tall = [float(one.get("height") or 0) for one in bars]
    assert [value / tall[0] for value in tall] == [1, 0.5, 0, 0.25]
    (line,) = [one for one in svg if one.get("class") == "limit"]
    assert float(bars[1].get("x") or 0) < float(line.get("x1") or 0) <= float(bars[2].get("x") or 0)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=30), start=st.integers(0, 10**6), wide=st.integers(1, 10**5))
@pytest.mark.parametrize("limit", [None, 1, 1500])
def test_everything_is_inside_the_picture(limit, counts, start, wide):
    histogram = [(start + i * wide, start + (i + 1) * wide - 1, count) for i, count in enumerate(counts)]
    svg = ElementTree.fromstring(length_plot(histogram, NAMES, LABEL, size=(260, 130), limit=limit))
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for one in svg.iter():
        for name, most in (("x", width), ("x1", width), ("y", height), ("y1", height)):
            assert 0 <= float(one.get(name) or 0) <= most
    assert len([one for one in svg if (one.get("class") or "").startswith("bar")]) == len(counts)


def test_words_are_no_markup():
    svg = ElementTree.fromstring(Axes(10, 10).draw([], [(0, "<b>")], [], ('a & "b"', ""), '"<&'))
    assert svg.get("aria-label") == '"<&'
    assert [text.text for text in svg.iter() if text.tag == "text"] == ["<b>", 'a & "b"']
