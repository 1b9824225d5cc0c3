"""Label Studio's export: tasks as the program writes them, by hand; brushes also in the pieces that its own editor writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paligemma.data.opening import open_data
from paligemma.data.records import DataSet
from paligemma.errors import InputError
from paligemma.mask_formats import brush
from tests.annotations.world import SIZE, codes, ellipse, iou, outline, pictures, things

WIDTH, HEIGHT = SIZE


def region(kind: str, label: object = "cat", **value: Any) -> dict[str, Any]:
    """Geometry in percent."""
    whole = {"id": "r1", "type": kind, "value": {**value, kind: [label]}, "from_name": "label", "to_name": "image"}
    return whole | {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}


def rectangle(x0: float, y0: float, x1: float, y1: float, label: object = "cat", **more: Any) -> dict[str, Any]:
    """Corners in pixels."""
    place = {"x": 100 * x0 / WIDTH, "y": 100 * y0 / HEIGHT, "width": 100 * (x1 - x0) / WIDTH, "height": 100 * (y1 - y0) / HEIGHT}
    return region("rectanglelabels", label, **place, **{"rotation": 0, **more})


def annotated(*results: object, **more: Any) -> dict[str, Any]:
    return {"id": 1, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": list(results), **more}


def task(id: int, image: str, *annotations: object, **more: Any) -> dict[str, Any]:
    return {"id": id, "annotations": list(annotations), "predictions": [], "data": {"image": image}, **more}


def opened(folder: Path, *tasks: object, asked: str | None = None) -> DataSet:
    """And a good task behind them."""
    pictures(folder)
    good = task(9, "/data/local-files/?d=b.png", annotated(rectangle(4, 6, 20, 30, "dog")))
    (folder / "export.json").write_text(json.dumps([*tasks, good]))
    return open_data(folder, max_bad_share=1, task=asked)


@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=a.png",
        "/data/local-files/?d=home/me/labels/a.png",
        "/data/upload/3/0f8fad5b-a.png",
        "https://bucket.example/album/a.png?signature=x",
        "s3://bucket/a.png",
        "a.png",
    ],
)
def test_rectangles_and_where_pictures_are(tmp_path, address):
    data = opened(tmp_path, task(1, address, annotated(rectangle(10, 12, 32, 24))))
    assert data.format == "labelstudio"
    assert things(data) == {"a.png": [("cat", pytest.approx((10, 12, 32, 24)))], "b.png": [("dog", pytest.approx((4, 6, 20, 30)))]}
    assert data.classes == ("cat", "dog")


def test_pictures_elsewhere_are_not_taken(tmp_path):
    pictures(tmp_path / "outside")
    data = opened(tmp_path / "set", task(1, "/data/local-files/?d=../outside/none.png", annotated(rectangle(1, 1, 5, 5))))
    assert codes(data) == {"1": "missing"}


@pytest.mark.parametrize("address", ["http://[", "a\0.png", f"/{'a/' * 3000}.png", "%ff"])
def test_addresses_that_are_none(tmp_path, address):
    assert list(codes(opened(tmp_path, task(1, address, annotated()))).values()) in (["field"], ["missing"])


def test_a_name_that_would_be_something_else_in_an_address(tmp_path):
    pictures(tmp_path)
    (tmp_path / "a.png").rename(tmp_path / "a #1?.png")
    (tmp_path / "export.json").write_text(json.dumps([task(1, "a #1?.png", annotated(rectangle(1, 1, 5, 5)))]))
    assert set(things(open_data(tmp_path))) == {"a #1?.png"}


def test_a_turned_rectangle_is_a_polygon(tmp_path):
    data = opened(tmp_path, task(1, "a.png", annotated(rectangle(40, 10, 60, 20, rotation=90))))
    (thing,) = data.records[0].things
    assert thing.box == pytest.approx((30, 10, 40, 30), abs=1e-3)  # turned about its top left corner
    assert thing.outline is not None


def test_polygons_ellipses_and_brushes(tmp_path):
    mask = ellipse((10, 12, 30, 36))
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((4, 6), (20, 6), (20, 30), (4, 30))]
    round_ = {"x": 100 * 20 / WIDTH, "y": 100 * 24 / HEIGHT, "radiusX": 100 * 10 / WIDTH, "radiusY": 100 * 12 / HEIGHT, "rotation": 0}
    tasks = [
        task(1, "a.png", annotated(region("polygonlabels", points=points))),
        task(2, "c.png", annotated(region("ellipselabels", **round_))),
        task(3, "d.png", annotated(region("brushlabels", format="rle", rle=brush(mask)))),
    ]
    pictures(tmp_path)
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    data = open_data(tmp_path, task="segment")
    polygon, ellipse_, painted = (outline(record).mask(*SIZE) for record in data.records)
    assert (polygon == np.pad(np.ones((24, 16), bool), ((6, 18), (4, 44)))).all()
    assert iou(ellipse_, mask) > 0.97
    assert (painted == mask).all()
    assert data.records[2].things[0].box == (10, 12, 30, 36)


def test_labels_that_stand_beside_their_region(tmp_path):
    """As with <Rectangle> and <Labels>: two results of one id."""
    shape = rectangle(10, 12, 32, 24)
    bare = {**shape, "type": "rectangle", "value": {key: value for key, value in shape["value"].items() if key != "rectanglelabels"}}
    named = {**shape, "type": "labels", "value": {**bare["value"], "labels": ["cat"]}}
    assert things(opened(tmp_path, task(1, "a.png", annotated(bare, named))))["a.png"] == [("cat", pytest.approx((10, 12, 32, 24)))]


def test_which_annotation_counts(tmp_path):
    early, late = annotated(rectangle(0, 0, 9, 9), updated_at="2026-01-01"), annotated(rectangle(1, 1, 5, 5), updated_at="2026-02-01")
    truth = annotated(rectangle(2, 2, 8, 8), ground_truth=True, updated_at="2025-01-01")
    skipped = annotated(rectangle(3, 3, 7, 7), was_cancelled=True, updated_at="2027-01-01")
    data = opened(tmp_path, task(1, "a.png", late, early, skipped), task(2, "c.png", early, truth, late))
    assert [things(data)[name][0][1] for name in ("a.png", "c.png")] == [pytest.approx((1, 1, 5, 5)), pytest.approx((2, 2, 8, 8))]
    assert data.notes == {"tasks have several annotations: the ground truth was used, or the last": 2}


def test_what_a_model_predicts_is_no_truth(tmp_path):
    predicted = {"model_version": "nano", "score": 0.5, "result": [rectangle(1, 1, 5, 5)]}
    data = opened(tmp_path, task(1, "a.png", predictions=[predicted]))
    assert set(things(data)) == {"b.png"}
    assert list(data.notes) == ["tasks have no annotation and were left out; what a model predicts is not taken"]
    (tmp_path / "export.json").write_text(json.dumps([task(1, "a.png", predictions=[predicted])]))
    with pytest.raises(InputError, match="none of the 1 tasks has an annotation"):
        open_data(tmp_path)


def test_what_covers_nothing_is_counted(tmp_path):
    choice = {"id": "c", "type": "choices", "value": {"choices": ["outdoors"]}, "from_name": "x", "to_name": "image"}
    point = region("keypointlabels", x=3, y=3, width=1)
    data = opened(tmp_path, task(1, "a.png", annotated(choice, point)))
    assert things(data)["a.png"] == []
    assert sum(data.notes.values()) == 2


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([3], "field"),
        ([{"type": "rectanglelabels"}], "field"),
        ([region("rectanglelabels", x=1, y=1, width=3)], "box"),
        ([region("rectanglelabels", x=1, y=1, width="3", height=3)], "box"),
        ([region("rectanglelabels", x=1, y=1, width=-3, height=3)], "box"),
        ([region("rectanglelabels", x=90, y=1, width=30, height=3)], "box"),
        ([region("rectanglelabels", "", x=1, y=1, width=3, height=3)], "label"),
        ([region("rectanglelabels", x=1, y=1, width=3, height=3) | {"original_width": 65}], "size"),
        ([region("rectanglelabels", x=1, y=1, width=3, height=3) | {"image_rotation": 90}], "size"),
        ([{"id": "x", "type": "rectangle", "value": {"x": 1, "y": 1, "width": 3, "height": 3}}], "label"),
        ([region("polygonlabels", points=[[1, 1], [5, 5]])], "outline"),
        ([region("polygonlabels", points=[[1, 1], [500, 5], [5, 9]])], "outline"),
        ([region("polygonlabels", points="1")], "outline"),
        ([region("ellipselabels", x=1, y=1, radiusX=0, radiusY=3)], "outline"),
        ([region("brushlabels", rle="x")], "outline"),
        ([region("brushlabels", rle=[0, 0, 1])], "outline"),
        ([region("brushlabels", rle=brush(np.ones((4, 4), bool)))], "outline"),
        ([region("brushlabels", rle=brush(np.zeros((HEIGHT, WIDTH), bool)))], "outline"),
        ([region("brushlabels", rle=brush(np.eye(HEIGHT, WIDTH, dtype=bool))[:-3])], "outline"),
    ],
)
def test_broken(tmp_path, results, code):
    data = opened(tmp_path, task(1, "a.png", annotated(*results)))
    assert codes(data) == {"1": code}
    assert set(things(data)) == {"b.png"}


@pytest.mark.parametrize(
    ("broken", "code"), [(3, "field"), (task(1, "none.png", annotated()), "missing"), (task(1, "", annotated()), "field")]
)
def test_tasks_that_are_none(tmp_path, broken, code):
    assert list(codes(opened(tmp_path, broken)).values()) == [code]


def test_a_folder_of_pictures_may_be_named(tmp_path):
    pictures(tmp_path / "album")
    file = tmp_path / "downloads" / "export.json"
    file.parent.mkdir()
    file.write_text(json.dumps([task(1, "/data/local-files/?d=album/a.png", annotated(rectangle(1, 1, 5, 5)))]))
    assert set(things(open_data(file, pictures=tmp_path / "album"))) == {"a.png"}


def test_the_project_beside_it_says_the_order_of_classes(tmp_path):
    listed = "".join(f'<Label value="{name}"/>' for name in ("zebra", "dog", ""))
    (tmp_path / "labels.xml").write_text(f'<View><RectangleLabels name="label" toName="image">{listed}</RectangleLabels></View>')
    data = opened(tmp_path, task(1, "a.png", annotated(rectangle(10, 12, 32, 24))))
    assert data.classes == ("zebra", "dog", "cat")
    (tmp_path / "labels.xml").write_text("<View>")
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.notes["lists of labels could not be read: labels.xml"] == 1
