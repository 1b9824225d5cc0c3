"""Galleries: what a page says to those who see it and those who do not, and that nothing in it is markup but ours."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from paligemma.index.gallery import CELL, GAP, page, sheet, show, write
from paligemma.index.query import Hit
from paligemma.results import Box
from tests.index.making import COLOURS, entry, paint

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def hits(tmp_path) -> list[Hit]:
    paint(tmp_path / "1.png", "white", size=(400, 200))
    paint(tmp_path / "2.png", "green", size=(20, 10))
    boxes = (Box("cat", 10, 20, 150, 160, 0.9), Box("cat", 200, 20, 350, 160), Box(EVIL, 1, 1, 9, 9))
    cats = entry(1, width=400, height=200, captions={"de": "zwei Katzen"}, text=EVIL, objects=boxes)
    return [
        Hit(cats, 0.5, {"words": 1, "captions": 2}, 0.25, 0.75, -3.5),
        Hit(entry(2), 0.1, {"words": 2}, 0.2),
        Hit(entry(3), 0.05, {"words": 3}),
    ]


def test_the_page(hits, tmp_path):
    text = page(hits, tmp_path, f"two cats {EVIL}")
    assert EVIL not in text
    assert text.count("<li>") == 3
    assert text.count("<img ") == 2, "the third picture is gone"
    assert "cannot be opened" in text
    assert f'alt="zwei Katzen. Boxed: 2 cat, 1 {EVIL.replace("<", "&lt;").replace(">", "&gt;")}"' in text
    assert '<p class="said" lang="de">zwei Katzen</p>' in text
    assert (tmp_path / "1.png").as_uri() in text
    assert "75.0%" in text
    assert re.findall(r'(?:src|href)="(?!data:|file:|#)', text) == []


def test_boxes_are_drawn_on_the_picture_they_belong_to(hits, tmp_path):
    drawn, plain, missing = show(hits, tmp_path)
    assert drawn.picture is not None
    assert plain.picture is not None
    assert missing.picture is None
    assert len(drawn.picture.getcolors(1 << 20)) > 1, "no box was drawn"
    paint(tmp_path / "1.png", "white", size=(60, 60))
    other = show(hits[:1], tmp_path)[0].picture
    assert other is not None
    assert other.getcolors() == [(3600, COLOURS["white"])], "boxes of another picture"


def test_files(hits, tmp_path):
    write(hits, tmp_path, "cats", tmp_path / "gallery.html")
    assert (tmp_path / "gallery.html").read_text("utf-8").startswith("<!doctype html>")
    write(hits, tmp_path, "cats", tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as picture:
        assert picture.width == 2 * (CELL + GAP) + GAP
        for left in (0, CELL + GAP, 2 * (CELL + GAP)):
            strip = picture.crop((left, 0, left + GAP, 200))
            assert strip.getcolors() == [(GAP * 200, (255, 255, 255))], "cells reach over each other"
    assert "Nothing was found" in page([], tmp_path, "cats")
    assert sheet([], tmp_path, "cats").width > 0
