"""COCO, written by supervision and pycocotools; and each way in which it can be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paligemma.data.opening import open_data, splits
from paligemma.data.outlines import Polygons, RunLengths
from paligemma.data.records import DataSet
from paligemma.errors import InputError, UsageError
from tests.annotations.world import CLASSES, SIZE, TRUTH, codes, ellipse, iou, outline, picture, pictures, supervised, things


def test_boxes_by_supervision(tmp_path):
    supervised(tmp_path / "in").as_coco(str(tmp_path / "set" / "images"), str(tmp_path / "set" / "annotations.json"))
    data = open_data(tmp_path / "set")
    assert (data.format, data.task, data.classes) == ("coco", "detect", tuple(CLASSES))
    assert things(data) == {name: [(label, tuple(map(float, box))) for label, box in found] for name, found in TRUTH.items()}
    assert data.records[0].where == "annotations.json: image 1"
    assert data.records[0].about["image_id"] == 1
    assert open_data(tmp_path / "set" / "annotations.json").fingerprint == data.fingerprint


def test_masks_by_supervision(tmp_path):
    supervised(tmp_path / "in", masks=True).as_coco(str(tmp_path / "set" / "images"), str(tmp_path / "set" / "annotations.json"))
    data = open_data(tmp_path / "set", task="segment")
    assert [len(record.things) for record in data.records] == [1, 2, 2, 0]
    for record in data.records:
        for thing, (label, box) in zip(record.things, TRUTH[record.pictures[0].name], strict=True):
            assert thing.label == label
            assert thing.outline is not None
            assert iou(thing.outline.mask(*SIZE), ellipse(box)) > 0.85  # its contour runs through the centres of the outermost pixels


def coco(folder: Path, change=lambda data: None, **options) -> DataSet:
    """Three pictures: polygons, run lengths of both kinds by pycocotools, a crowd; `change` breaks something."""
    from pycocotools import mask as coco_masks

    pictures(folder / "images")
    whole = ellipse((5, 5, 25, 20))
    compressed: Any = coco_masks.encode(np.asfortranarray(whole.astype(np.uint8)))
    short = {**compressed, "counts": compressed["counts"].decode()}
    long = {"size": [48, 64], "counts": [int(run) for run in np.diff(np.flatnonzero(np.diff(np.r_[2, whole.ravel("F"), 2])))]}
    data: dict[str, Any] = {
        "info": {},
        "images": [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(["a.png", "b.png", "c.png"])],
        "annotations": [
            {"id": 10, "image_id": 0, "category_id": 7, "bbox": [4, 6, 16, 24], "segmentation": [[4, 6, 20, 6, 20, 30]], "iscrowd": 0},
            {"id": 11, "image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 15], "segmentation": short},
            {"id": 12, "image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 15], "segmentation": long, "iscrowd": 1},
            {"id": 13, "image_id": 2, "category_id": 7, "bbox": [0, 0, 64, 48], "segmentation": []},
        ],
        "categories": [{"id": 7, "name": "cat", "supercategory": "animal"}, {"id": 3, "name": "dog"}],
    }
    change(data)
    (folder / "x.json").write_text(json.dumps(data))
    return open_data(folder / "x.json", max_bad_share=1, **options)


def test_outlines_and_crowds(tmp_path):
    data = coco(tmp_path)
    assert data.classes == ("cat", "dog")
    assert isinstance(outline(data.records[0]), Polygons)
    assert isinstance(outline(data.records[1]), RunLengths)
    assert (outline(data.records[1]).mask(*SIZE) == ellipse((5, 5, 25, 20))).all()
    (crowd,) = data.records[1].ignored
    assert crowd.outline is not None
    assert (crowd.outline.mask(*SIZE) == ellipse((5, 5, 25, 20))).all()
    assert data.records[2].things[0].outline is None
    assert data.notes == {"regions are crowds and were not used": 1}


def test_a_box_alone_cannot_be_segmented(tmp_path):
    data = coco(tmp_path, task="segment")
    assert codes(data) == {"2": "outline"}
    assert "cat" in data.faults[0].detail


def one(key: str, number: int, **values: object):
    """Changes fields; None removes them."""

    def change(data: dict[str, Any]) -> None:
        entry = data[key][number]
        entry.update(values)
        for name in [name for name, value in values.items() if value is None]:
            del entry[name]

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (one("annotations", 0, category_id=99), {"0": "category"}),
        (one("annotations", 0, category_id=[7]), {"0": "category"}),
        (one("annotations", 0, category_id=None), {"0": "category"}),
        (one("annotations", 0, bbox=[4, 6, -16, 24]), {"0": "box"}),
        (one("annotations", 0, bbox=[4, 6, 0, 24]), {"0": "box"}),
        (one("annotations", 0, bbox=[-40, 6, 16, 24]), {"0": "box"}),
        (one("annotations", 0, bbox=[4, 6, 16, float("nan")]), {"0": "box"}),
        (one("annotations", 0, bbox=[4, 6, 16]), {"0": "box"}),
        (one("annotations", 0, bbox=["4", 6, 16, 24]), {"0": "box"}),
        (one("annotations", 0, bbox=None, segmentation=None), {"0": "field"}),
        (one("annotations", 0, segmentation=[[4, 6, 20, 6]]), {"0": "outline"}),
        (one("annotations", 0, segmentation=[[4, 6, 20, 6, 20, 30], [1, 2]]), {"0": "outline"}),
        (one("annotations", 1, segmentation={"size": [48, 64], "counts": "0"}), {"1": "outline"}),
        (one("annotations", 1, segmentation={"size": [9, 9], "counts": [81]}), {"1": "outline"}),
        (one("annotations", 0, image_id=99), {"annotation 10": "field"}),
        (one("annotations", 0, image_id=None), {"annotation 10": "field"}),
        (one("annotations", 0, image_id={}), {"annotation 10": "field"}),
        (one("images", 0, file_name="none.png"), {"0": "missing"}),
        (one("images", 0, file_name="/a.png"), {"0": "path"}),
        (one("images", 0, file_name="../../x.json"), {"0": "path"}),
        (one("images", 0, file_name=None), {"0": "field"}),
        (one("images", 0, file_name=7), {"0": "field"}),
        (one("images", 0, width=65), {"0": "size"}),
        (one("images", 0, id=None), {"": "field", "annotation 10": "field"}),
        (lambda data: data["images"].append(data["images"][0]), {"0": "duplicate"}),
        (lambda data: data["images"].append(5), {"": "field"}),
        (lambda data: data["annotations"].append("x"), {"annotation None": "field"}),
    ],
)
def test_broken(tmp_path, change, expected):
    data = coco(tmp_path, change)
    assert codes(data) == expected
    lost = {"0", "1", "2"} - {record.id for record in data.records}
    without_id = "" in expected and len(expected) == 2  # its annotations are not its own any more
    assert lost == ({"0"} if without_id else {id for id, code in expected.items() if id.isdigit() and code != "duplicate"})


def test_two_pictures_of_one_id_are_both_left_out(tmp_path):
    """Nobody knows whose the annotations are."""
    data = coco(tmp_path, one("images", 1, id=0))
    assert sorted((fault.id, fault.path, fault.code) for fault in data.faults if fault.code == "duplicate") == [
        ("0", "a.png", "duplicate"),
        ("0", "b.png", "duplicate"),
    ]
    assert [record.id for record in data.records] == ["2"]


def test_a_missing_box_is_made_of_the_outline(tmp_path):
    data = coco(tmp_path, one("annotations", 0, bbox=None))
    assert data.records[0].things[0].box == (4, 6, 20, 30)


def test_the_annotation_is_named(tmp_path):
    data = coco(tmp_path, one("annotations", 1, bbox=[0, 0, 100, 10]))
    assert str(data.faults[0]).startswith("x.json: image 1: box: annotation 11: the box reaches 36 pixels out of a picture of 64 x 48")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"file_name": "a", "id": 1}], "annotations": [', "no JSON"),
        ('{"images": [{"file_name": "a", "id": 1}], "annotations": {}}', "list called annotations"),
        ('{"images": [{"file_name": "a", "id": 1}], "annotations": []}', "list called categories"),
        ('{"images": [{"file_name": "a"}], "annotations": [], "categories": [{"id": 1}]}', "a category"),
        ('{"images": [{"file_name": "a"}], "annotations": [], "categories": [{"id": 1, "name": "a;b"}]}', "a category"),
        (
            '{"images": [{"file_name": "a"}], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "two categories",
        ),
    ],
)
def test_a_whole_file_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        open_data(tmp_path / "x.json")
    assert caught.value.exit_code == 3


def captions(folder: Path) -> Path:
    pictures(folder / "val2017")
    data = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 2, "file_name": "b.png"},
            {"id": 3, "file_name": "c.png"},
        ],
        "annotations": [{"image_id": 1, "id": i, "caption": f" caption {i} "} for i in range(5)]
        + [{"image_id": 2, "id": 9, "caption": " "}],
    }
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(data))
    return folder / "annotations" / "captions_val2017.json"


def test_captions(tmp_path):
    data = open_data(captions(tmp_path), max_bad_share=1)
    assert data.task == "caption"
    assert [(record.prompt, record.answers) for record in data.records] == [("caption en", tuple(f"caption {i}" for i in range(5)))]
    assert codes(data) == {"2": "answer", "3": "answer"}
    assert data.records[0].pictures[0].parent.name == "val2017"


def test_the_layout_of_coco_itself(tmp_path):
    """Instances and captions side by side, pictures in a folder that is named in the file's name."""
    captions(tmp_path)
    for split in ("train2017", "val2017"):
        pictures(tmp_path / split)
        supervised(tmp_path / split).as_coco(annotations_path=str(tmp_path / "annotations" / f"instances_{split}.json"))
    assert splits(tmp_path) == ("train", "valid")
    data = open_data(tmp_path, split="val")
    assert len(data) == 4
    assert {record.pictures[0].parent.name for record in data.records} == {"val2017"}
    assert data.records[0].id == "valid/1"
    assert open_data(tmp_path, split="val", task="caption", max_bad_share=1).records[0].answers[0] == "caption 0"


def test_an_export_of_roboflow(tmp_path):
    for split in ("train", "valid"):
        supervised(tmp_path / "in").as_coco(str(tmp_path / "set" / split), str(tmp_path / "set" / split / "_annotations.coco.json"))
    (tmp_path / "set" / "README.roboflow.txt").write_text("hello")
    data = open_data(tmp_path / "set", split="valid")
    assert (data.format, len(data)) == ("coco", 4)
    assert data.records[0].pictures[0].parent.name == "valid"


def test_pictures_elsewhere(tmp_path):
    supervised(tmp_path / "in").as_coco(annotations_path=str(tmp_path / "set" / "x.json"))
    with pytest.raises(InputError, match="4 missing") as caught:
        open_data(tmp_path / "set" / "x.json")
    assert "--pictures" in str(caught.value.hint)
    assert len(open_data(tmp_path / "set" / "x.json", pictures=tmp_path / "in")) == 4


def test_pictures_are_not_looked_for_above_the_folder(tmp_path):
    """A file that is named a.png may lie above by chance; it is none of this data set's."""
    supervised(tmp_path / "in").as_coco(annotations_path=str(tmp_path / "set" / "x.json"))
    pictures(tmp_path / "images")
    pictures(tmp_path)
    with pytest.raises(InputError, match="4 missing"):
        open_data(tmp_path / "set" / "x.json")


def test_a_category_that_is_only_a_parent(tmp_path):
    """Roboflow writes one with the name of the whole set; a class that is merely not used in this split stays one."""

    def change(data: dict[str, Any]) -> None:
        for category in data["categories"]:
            category["supercategory"] = "animals"
        data["categories"] = [{"id": 0, "name": "animals", "supercategory": "none"}, *data["categories"], {"id": 9, "name": "cow"}]

    assert coco(tmp_path, change).classes == ("cat", "dog", "cow")


def test_several_files_that_could_be_meant(tmp_path):
    for name in ("one.json", "two.json"):
        supervised(tmp_path).as_coco(annotations_path=str(tmp_path / name))
    with pytest.raises(UsageError, match=r"one\.json, two\.json"):
        open_data(tmp_path)


def test_sentences(tmp_path):
    """RefCOCO in COCO's format: each sentence is a record; one that means two things is a fault."""

    def change(data: dict[str, Any]) -> None:
        data["annotations"] = [data["annotations"][0], {**data["annotations"][0], "id": 14, "bbox": [4, 6, 15, 24]}]
        data["annotations"][0]["sentences"] = [{"raw": "the left cat"}, {"raw": "cat"}]
        data["annotations"][1]["caption"] = "cat"

    data = coco(tmp_path, change, task="refer")
    assert [(record.id, record.asked) for record in data.records] == [("0#0", ("the left cat",))]
    assert codes(data) == {"0#1": "task", "0#2": "task"}
    assert data.notes["pictures have no things to ask about"] == 2
    data = coco(tmp_path, change, task="describe_box")
    assert [record.answers for record in data.records] == [("the left cat", "cat"), ("cat",)]
    assert data.records[0].prompt == "caption <loc0128><loc0064><loc0639><loc0320>"


def test_a_picture_on_its_side(tmp_path):
    from tests.annotations.world import turned

    turned(tmp_path / "images" / "x.jpg", (48, 64))

    def change(data: dict[str, Any]) -> None:
        data["images"][0]["file_name"] = "x.jpg"
        data["images"][1].update(file_name="x.jpg", width=48, height=64)

    data = coco(tmp_path, change)
    assert codes(data) == {"1": "size"}
    assert "EXIF" in data.faults[0].detail
    assert picture(tmp_path / "images" / "a.png").is_file()
