"""CVAT for images 1.1: XML as the program writes it, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paligemma.data.opening import open_data
from paligemma.data.records import DataSet
from paligemma.errors import InputError
from paligemma.mask_formats import cvat_runs
from tests.annotations.world import SIZE, codes, ellipse, iou, outline, pictures, things

META = "<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>"


def image(name: str, *shapes: str, size: tuple[int, int] = SIZE) -> str:
    return f'<image id="0" name="{name}" width="{size[0]}" height="{size[1]}">{"".join(shapes)}</image>'


def box(x0: object, y0: object, x1: object, y1: object, label: str = "cat", more: str = "") -> str:
    return f'<box label="{label}" source="manual" occluded="0" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}" z_order="0" {more}></box>'


def mask(which: np.ndarray) -> str:
    counts, left, top, width, height = cvat_runs(which)
    return f'<mask label="cat" rle="{", ".join(map(str, counts))}" left="{left}" top="{top}" width="{width}" height="{height}"/>'


def opened(folder: Path, *images: str, task: str | None = None) -> DataSet:
    """And a good one behind them."""
    pictures(folder / "images")
    whole = "".join((*images, image("b.png", box(4, 6, 20, 30, "dog"))))
    (folder / "annotations.xml").write_text(f'<?xml version="1.0"?><annotations><version>1.1</version>{META}{whole}</annotations>')
    return open_data(folder, max_bad_share=1, task=task)


def test_boxes(tmp_path):
    data = opened(tmp_path, image("a.png", box(1.5, 2, 20.25, 30), "<tag label='cat'/>"))
    assert (data.format, data.classes) == ("cvat", ("dog", "cat"))
    assert things(data) == {"a.png": [("cat", (1.5, 2, 20.25, 30))], "b.png": [("dog", (4, 6, 20, 30))]}
    assert data.notes == {}


def test_a_file_by_itself_and_pictures_elsewhere(tmp_path):
    opened(tmp_path)
    assert open_data(tmp_path / "annotations.xml").format == "cvat"
    (tmp_path / "images").rename(tmp_path / "album")
    assert set(things(open_data(tmp_path / "annotations.xml", pictures=tmp_path / "album"))) == {"b.png"}


def test_outlines(tmp_path):
    round_ = ellipse((10, 12, 30, 36))
    shapes = [
        '<polygon label="cat" points="4.00,6.00;20.00,6.00;20.00,30.00;4.00,30.00"/>',
        '<ellipse label="cat" cx="20" cy="24" rx="10" ry="12"/>',
        mask(round_),
    ]
    pictures(tmp_path / "images")
    xml = f"<annotations>{image('a.png', *shapes)}</annotations>"
    (tmp_path / "annotations.xml").write_text(xml)
    data = open_data(tmp_path, task="segment")
    polygon, drawn, painted = (outline(data.records[0], number).mask(*SIZE) for number in range(3))
    assert (polygon == np.pad(np.ones((24, 16), bool), ((6, 18), (4, 44)))).all()
    assert iou(drawn, round_) > 0.97
    assert (painted == round_).all()


def test_a_turned_box_is_a_polygon(tmp_path):
    (thing,) = opened(tmp_path, image("a.png", box(20, 10, 40, 20, more='rotation="90"'))).records[0].things
    assert thing.box == pytest.approx((25, 5, 35, 25), abs=1e-3)  # about its middle
    assert thing.outline is not None


def test_what_covers_nothing_is_counted(tmp_path):
    data = opened(
        tmp_path, image("a.png", '<points label="cat" points="1,1"/>', '<polyline label="cat" points="1,1;5,5"/>'), "<track id='0'/>"
    )
    assert things(data)["a.png"] == []
    assert sum(data.notes.values()) == 3


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (box(1, 2, 20, "x"), "box"),
        (box(1, 2, 20, "nan"), "box"),
        (box(20, 2, 1, 30), "box"),
        (box(1, 2, 90, 30), "box"),
        (box(1, 2, 20, 30, label=""), "label"),
        ('<box xtl="1" ytl="1" xbr="5" ybr="5"/>', "label"),
        ('<box label="cat" xtl="1" ytl="1" xbr="5"/>', "box"),
        ('<polygon label="cat" points="1,1;5,5"/>', "outline"),
        ('<polygon label="cat" points="1,1;5,x;3,3"/>', "outline"),
        ('<polygon label="cat" points="1,1;5,5,5;3,3"/>', "outline"),
        ('<polygon label="cat"/>', "outline"),
        ('<polygon label="cat" points="1,1;500,5;3,9"/>', "outline"),
        ('<ellipse label="cat" cx="20" cy="24" rx="0" ry="12"/>', "outline"),
        ('<mask label="cat" rle="0, 4" left="1" top="1" width="3" height="2"/>', "outline"),
        ('<mask label="cat" rle="0, x" left="1" top="1" width="3" height="2"/>', "outline"),
        ('<mask label="cat" rle="0, 6" left="62" top="1" width="3" height="2"/>', "outline"),
        ('<mask label="cat" rle="6" left="1" top="1" width="3" height="2"/>', "outline"),
        ('<mask label="cat" rle="0, 6" left="1" top="1" width="3"/>', "outline"),
    ],
)
def test_broken(tmp_path, shape, code):
    data = opened(tmp_path, image("a.png", shape))
    assert codes(data) == {"a.png": code}
    assert set(things(data)) == {"b.png"}


@pytest.mark.parametrize(
    ("broken", "code"),
    [(image("none.png"), "missing"), (image("../../x/a.png"), "path"), (image("a.png", size=(65, 48)), "size"), ("<image/>", "field")],
)
def test_images_that_are_none(tmp_path, broken, code):
    assert list(codes(opened(tmp_path, broken)).values()) == [code]


@pytest.mark.parametrize(
    ("text", "says"),
    [("<annotations><image>", "broken XML"), ("<!DOCTYPE x><annotations/>", "document type"), ("<annotations/>", "no images")],
)
def test_a_file_that_is_none(tmp_path, text, says):
    pictures(tmp_path / "images")
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(InputError, match=says):
        open_data(tmp_path, format="cvat")
