"""Bars, and the picture and page that show them."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from paligemma.benchmark import page, picture
from paligemma.benchmark.charts import KINDS, charts
from paligemma.benchmark.figures import Benchmark
from tests.benchmark.making import measured, side_by_side


def test_bars_are_as_long_as_what_they_stand_for():
    shares, line, rates = charts(side_by_side())
    assert shares.mark == (1.0, "all there is"), "the end of the scale"
    (_, bars), (_, slower) = shares.groups
    assert [bar.label for bar in bars] == ["image tower", "prompt", "decoding", "decoding, 2 pictures"]
    assert bars[2].parts[0].length == pytest.approx(0.8), "of the way to the line"
    assert slower[2].parts[0].length == pytest.approx(0.4)
    ours, theirs = (group[1][0] for group in line.groups)
    assert sum(part.length for part in theirs.parts) == pytest.approx(1)
    assert sum(part.length for part in ours.parts) == pytest.approx(0.5)
    assert [part.words for part in ours.parts] == ["picture 0.50 s", "prompt 2.0 s", "tokens 3.9 s"]
    assert ours.note == "0.50 s + 2.0 s + 3.9 s"
    assert [bar.note for bar in rates.groups[0][1]] == ["8.0 tokens/s", "13 tokens/s"]


def test_one_picture_at_a_time_has_nothing_to_compare():
    assert len(charts(Benchmark((measured(),)))) == 2


def test_a_bar_never_leaves_its_place():
    tiny = measured()
    fast = Benchmark((measured(slower=0.01), tiny))
    assert all(sum(part.length for part in bar.parts) <= 1 + 1e-9 for chart in charts(fast) for _, bars in chart.groups for bar in bars)


def test_the_page_needs_nothing_else_and_text_stays_text():
    html = page.page(Benchmark((measured(label="<b>a & b</b>", batches=True, spread=0.5),)))
    assert "<b>a" not in html
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in html
    assert not re.search(r"<script|https?://|<img|<link", html)
    assert "Warning: the machine is busy" in html
    assert "Memory is what limits it." in html


def test_page_and_picture_as_files(tmp_path):
    page.save(side_by_side(), tmp_path / "a.html")
    picture.save(side_by_side(), tmp_path / "a.png")
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.format == "PNG"
        assert set(KINDS.values()) <= {colour for _, colour in drawn.convert("RGB").getcolors(2**20) or ()}
