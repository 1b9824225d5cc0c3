"""LabelMe: files by supervision, and by hand as the program writes its other shapes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paligemma.data.opening import open_data
from paligemma.data.records import DataSet
from tests.annotations.world import SIZE, TRUTH, codes, ellipse, iou, outline, picture, pictures, supervised, things


@pytest.mark.parametrize("masks", [False, True])
def test_by_supervision(tmp_path, masks):
    supervised(tmp_path / "in", masks=masks).as_labelme(str(tmp_path / "set"), str(tmp_path / "set"))
    data = open_data(tmp_path / "set", task="segment" if masks else None)
    assert (data.format, data.classes) == ("labelme", ("cat", "dog"))
    for name, found in things(data).items():
        assert [label for label, _ in found] == [label for label, _ in TRUTH[name]]
        for (_, read), (_, expected) in zip(found, TRUTH[name], strict=True):
            assert read == pytest.approx(expected, abs=1.5 if masks else 0.01)
    if masks:
        assert iou(outline(data.records[0]).mask(*SIZE), ellipse((4, 6, 20, 30))) > 0.8


def shape(kind: str, points: object, label: object = "cat", **others: object) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {}, **others}


def labelme(folder: Path, *shapes: object, text: str | bytes | None = None, task: str | None = None, **fields: object) -> DataSet:
    pictures(folder)
    data = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": 48,
        "imageWidth": 64,
    }
    whole = json.dumps(data | fields) if text is None else text
    (folder / "a.json").write_bytes(whole if isinstance(whole, bytes) else whole.encode())
    good = data | {"imagePath": "b.png", "shapes": [shape("rectangle", [[20, 30], [4, 6]], "dog")]}
    (folder / "b.json").write_text(json.dumps(good))
    return open_data(folder, format="labelme", max_bad_share=1, task=task)


def test_a_rectangle_may_be_drawn_from_any_corner(tmp_path):
    data = labelme(tmp_path, shape("rectangle", [[20, 6], [4, 30]]))
    assert things(data) == {"a.png": [("cat", (4, 6, 20, 30))], "b.png": [("dog", (4, 6, 20, 30))]}
    assert data.records[0].things[0].outline is None


def test_circles(tmp_path):
    data = labelme(tmp_path, shape("circle", [[30, 24], [40, 24]]))
    assert data.records[0].things[0].box == pytest.approx((20, 14, 40, 34))
    assert iou(outline(data.records[0]).mask(*SIZE), ellipse((20, 14, 40, 34))) > 0.97


def encoded(mask: np.ndarray) -> str:
    written = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def test_masks(tmp_path):
    mask = ellipse((4, 6, 20, 30))
    data = labelme(tmp_path, shape("mask", [[4, 6], [19, 29]], mask=encoded(mask[6:30, 4:20])), task="segment")
    assert (outline(data.records[0]).mask(*SIZE) == mask).all()
    assert data.records[0].things[0].box == (4, 6, 20, 30)


def test_shapes_of_a_group_are_one_thing(tmp_path):
    left, right = [[4, 6], [10, 6], [10, 30]], [[20, 6], [30, 6], [30, 30]]
    first = [shape("polygon", left, group_id=1), shape("polygon", right, group_id=1), shape("polygon", left, "dog", group_id=1)]
    second = [shape("rectangle", [[0, 0], [5, 5]], group_id=2), shape("polygon", left, group_id=2)]
    data = labelme(tmp_path, *first, *second, shape("polygon", right), shape("polygon", right))
    found = data.records[0].things
    assert [(thing.label, thing.box) for thing in found] == [
        ("cat", (4, 6, 30, 30)), ("dog", (4, 6, 10, 30)), ("cat", (0, 0, 10, 30)), ("cat", (20, 6, 30, 30)),
    ]  # fmt: skip
    assert len(outline(data.records[0]).rings) == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert found[2].outline is None  # a part of it is a box
    assert data.notes == {"things stood in the same picture twice and were taken once": 1}


def test_polygon_and_mask_in_a_group(tmp_path):
    mask = ellipse((4, 6, 20, 30))
    parts = (
        shape("mask", [[4, 6], [19, 29]], mask=encoded(mask[6:30, 4:20]), group_id=1),
        shape("polygon", [[30, 1], [40, 1], [40, 9], [30, 9]], group_id=1),
    )
    data = labelme(tmp_path, *parts)
    mask[1:9, 30:40] = True
    assert (outline(data.records[0]).mask(*SIZE) == mask).all()


def test_what_covers_nothing_is_counted(tmp_path):
    data = labelme(tmp_path, shape("point", [[1, 1]]), shape("line", [[1, 1], [5, 5]]), shape("linestrip", [[1, 1], [5, 5], [6, 6]]))
    assert sum(data.notes.values()) == 3
    assert data.records[0].things == ()


def test_descriptions_mean_the_thing(tmp_path):
    polygon = [[4, 6], [20, 6], [20, 30]]
    data = labelme(tmp_path, shape("polygon", polygon, description="the cat on the left"), task="refer")
    assert [(record.id, record.asked) for record in data.records] == [("a#0", ("the cat on the left",))]
    assert codes(data) == {"b": "outline"}


SQUARE = [[4, 6], [20, 6], [20, 30]]


@pytest.mark.parametrize(
    ("shapes", "fields", "code"),
    [
        ([], {"imagePath": "none.png"}, "missing"),
        ([], {"imagePath": "../x/a.png"}, "path"),
        ([], {"imagePath": "..\\x\\a.png"}, "path"),
        ([], {"imagePath": None}, "field"),
        ([], {"imagePath": "none.png", "imageData": "no base64!"}, "picture"),
        ([], {"imagePath": "none.png", "imageData": base64.b64encode(b"no picture").decode()}, "picture"),
        ([], {"imageWidth": 65}, "size"),
        ([], {"shapes": None}, "field"),
        ([3], {}, "field"),
        ([shape("polygon", SQUARE, "")], {}, "label"),
        ([shape("polygon", SQUARE, None)], {}, "label"),
        ([shape("polygon", SQUARE[:2])], {}, "outline"),
        ([shape("polygon", [[4, 6], [20, 6], [200, 30]])], {}, "outline"),
        ([shape("polygon", None)], {}, "field"),
        ([shape("rectangle", [[4, 6]])], {}, "box"),
        ([shape("rectangle", [[4, 6], [4, 30]])], {}, "box"),
        ([shape("rectangle", [[4, 6], [20, "30"]])], {}, "box"),
        ([shape("rectangle", [[4, 6], [90, 30]])], {}, "box"),
        ([shape("circle", [[4, 6], [4, 6]])], {}, "outline"),
        ([shape("mask", [[4, 6], [19, 29]])], {}, "outline"),
        ([shape("mask", [[4, 6], [19, 29]], mask="AAAA")], {}, "outline"),
        ([shape("mask", [[60, 6], [70, 29]], mask=encoded(np.ones((24, 11), bool)))], {}, "outline"),
        ([shape("mask", [[4, 6], [5, 7]], mask=encoded(np.zeros((2, 2), bool)))], {}, "outline"),
    ],
)
def test_broken(tmp_path, shapes, fields, code):
    data = labelme(tmp_path, *shapes, **fields)
    assert codes(data) == {"a": code}
    assert [record.id for record in data.records] == ["b"]


def test_a_rectangle_of_one_point_is_called_so(tmp_path):
    assert labelme(tmp_path, shape("rectangle", [[4, 6]])).faults[0].detail == "shape 1: a rectangle needs two points, found 1"


@pytest.mark.parametrize(("text", "code"), [("{", "json"), (b'{"shapes": "\xff"}', "encoding"), ("[]", "field")])
def test_a_file_that_is_none(tmp_path, text, code):
    assert codes(labelme(tmp_path, text=text)) == {"a": code}


def test_a_picture_inside_the_file(tmp_path):
    """Used where the picture is not at its path, and only then."""
    inside = base64.b64encode(picture(tmp_path / "other" / "x.png", (64, 48), "red").read_bytes()).decode()
    data = labelme(tmp_path / "set", imageData=inside)
    assert data.records[0].pictures == (tmp_path / "set" / "a.png",)
    for path in ("none.png", "..\\x\\a.png"):
        labelme(tmp_path / "set", imageData=inside, imagePath=path)
        data = open_data(tmp_path / "set", scratch=tmp_path / "scratch")
        assert data.records[0].pictures[0].parent == tmp_path / "scratch"
        assert data.records[0].pictures[0].read_bytes() == base64.b64decode(inside)
        assert list(data.notes.values()) == [1]


def test_windows_separators(tmp_path):
    picture(tmp_path / "images" / "w.png")
    assert labelme(tmp_path, imagePath="images\\w.png").records[0].pictures[0] == tmp_path / "images" / "w.png"
