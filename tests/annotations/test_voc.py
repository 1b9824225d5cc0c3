"""Pascal VOC, written by supervision, and the development kit's own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.data.opening import open_data, splits
from paligemma.data.records import DataSet
from paligemma.errors import InputError
from tests.annotations.test_reading import BOMB
from tests.annotations.world import SIZE, TRUTH, codes, ellipse, iou, outline, picture, pictures, supervised, things


def test_boxes_by_supervision(tmp_path):
    supervised(tmp_path / "in").as_pascal_voc(str(tmp_path / "set" / "JPEGImages"), str(tmp_path / "set" / "Annotations"))
    data = open_data(tmp_path / "set")
    assert (data.format, data.classes) == ("voc", ("cat", "dog"))
    assert things(data) == {name: [(label, tuple(map(float, box))) for label, box in found] for name, found in TRUTH.items()}
    assert data.records[0].id == "a"


def test_polygons_by_supervision(tmp_path):
    supervised(tmp_path / "in", masks=True).as_pascal_voc(str(tmp_path / "set" / "images"), str(tmp_path / "set" / "Annotations"))
    data = open_data(tmp_path / "set", task="segment")
    for record in data.records:
        for i, (_, box) in enumerate(TRUTH[record.pictures[0].name]):
            assert iou(outline(record, i).mask(*SIZE), ellipse(box)) > 0.8


OBJECT = "<object><name>cat</name>{}<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
SIZES = "<size><width>64</width><height>48</height><depth>3</depth></size>"


def xml(*objects: str, name: str = "a.png", size: str = SIZES) -> str:
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


def kit(folder: Path, text: str | bytes) -> Path:
    """VOCdevkit/VOC2012 with two annotations, one of them `text`."""
    top = folder / "VOCdevkit" / "VOC2012"
    pictures(top / "JPEGImages")
    (top / "Annotations").mkdir(parents=True, exist_ok=True)
    (top / "Annotations" / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (top / "Annotations" / "b.xml").write_text(xml(OBJECT.format(""), name="b.png"))
    return top


def voc(folder: Path, text: str | bytes, **options) -> DataSet:
    kit(folder, text)
    return open_data(folder, max_bad_share=1, **options)


def test_the_whole_picture_counts_from_one(tmp_path):
    whole = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>64</xmax><ymax>48</ymax></bndbox></object>"
    assert voc(tmp_path, xml(whole)).records[0].things[0].box == (0, 0, 64, 48)


def test_difficult_objects_are_ignored(tmp_path):
    data = voc(tmp_path, xml(OBJECT.format("<difficult>1</difficult>"), OBJECT.format("<difficult>0</difficult>")))
    assert (len(data.records[0].things), len(data.records[0].ignored)) == (1, 1)
    assert data.notes["objects are marked as difficult and were not used"] == 1


def box(**sides: object) -> str:
    given = {"xmin": 5, "ymin": 7, "xmax": 20, "ymax": 30} | sides
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in given.items() if value is not None)
    return f"<object><name>cat</name><bndbox>{inner}</bndbox></object>"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<annotation>", "json"),
        ("", "json"),
        (BOMB, "json"),
        (xml().encode("utf-16-le"), "json"),
        (b"<annotation>\xff</annotation>", "encoding"),
        ("<html></html>", "field"),
        (xml(name="none.png"), "missing"),
        (xml(name="../../../../x.png"), "path"),
        (xml(name="/etc/x.png"), "path"),
        (xml(size=SIZES.replace("64", "63")), "size"),
        (xml(size=SIZES.replace("64", "wide")), "field"),
        (xml(OBJECT.format("").replace("cat", "")), "label"),
        (xml(OBJECT.format("").replace("<name>cat</name>", "")), "label"),
        (xml("<object><name>cat</name></object>"), "field"),
        (xml(box(xmin=20, xmax=5)), "box"),
        (xml(box(xmax="wide")), "box"),
        (xml(box(xmax=None)), "field"),
        (xml(box(xmax="nan")), "box"),
        (xml(box(xmax=90)), "box"),
        (xml(OBJECT.format("<polygon><x1>1</x1><y1>1</y1></polygon>")), "outline"),
        (xml(OBJECT.format("<polygon><x1>1</x1><y2>1</y2></polygon>")), "field"),
    ],
)
def test_broken(tmp_path, text, code):
    data = voc(tmp_path, text)
    assert codes(data) == {"a": code}
    assert data.faults[0].where == "VOCdevkit/VOC2012/Annotations/a.xml"
    assert [record.id for record in data.records] == ["b"]


@pytest.mark.parametrize("size", ["", SIZES.replace("64", "0").replace("48", "0")])
def test_a_size_that_is_not_known(tmp_path, size):
    assert not voc(tmp_path, xml(OBJECT.format(""), size=size)).faults


def test_splits(tmp_path):
    top = kit(tmp_path, xml(OBJECT.format("")))
    lists = top / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, stems in {"train": "a\n", "val": "b \n", "trainval": "a\nb\n", "cat_train": "a  1\n"}.items():
        (lists / f"{name}.txt").write_text(stems)
    assert splits(tmp_path) == ("train", "valid", "trainval")
    assert [record.id for record in open_data(tmp_path, split="train").records] == ["train/a"]
    assert [record.id for record in open_data(tmp_path, split="all").records] == ["train/a", "valid/b"]
    (lists / "val.txt").write_text("b\nnone\n../../x\n")
    data = open_data(tmp_path, split="val", max_bad_share=1)
    assert codes(data) == {"valid/none": "missing", "val:3": "path"}


def test_masks_of_objects(tmp_path):
    """Value i is the i-th object; the border between them is 255 and nobody's."""
    top = kit(tmp_path, xml(OBJECT.format(""), box(xmin=31, ymin=11, xmax=50, ymax=40)))
    values = np.zeros((48, 64), np.uint8)
    first, second = ellipse((4, 6, 20, 30)), ellipse((30, 10, 50, 40))
    values[first], values[second] = 1, 2
    values[0] = 255
    mask = Image.fromarray(values, "P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    (top / "SegmentationObject").mkdir()
    mask.save(top / "SegmentationObject" / "a.png")
    data = open_data(tmp_path, task="segment", max_bad_share=1)
    assert (outline(data.records[0], 0).mask(*SIZE) == first).all()
    assert (outline(data.records[0], 1).mask(*SIZE) == second).all()
    assert codes(data) == {"b": "outline"}  # it has boxes only
    values[second] = 3
    Image.fromarray(values).save(top / "SegmentationObject" / "a.png")
    with pytest.raises(InputError, match=r"a\.png has no pixel of object 2"):
        open_data(tmp_path, task="segment")


def test_an_export_with_the_files_beside_the_pictures(tmp_path):
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.png")
        (tmp_path / split / "a.xml").write_text(xml(OBJECT.format("")))
    data = open_data(tmp_path, split="all")
    assert (data.format, [record.id for record in data.records]) == ("voc", ["train/a", "valid/a"])
    assert open_data(tmp_path / "train").records[0].things[0].box == (4, 6, 20, 30)


def test_a_labelmap_says_the_order_of_classes(tmp_path):
    top = kit(tmp_path, xml(OBJECT.format("").replace("cat", "ant")))
    assert open_data(tmp_path).classes == ("ant", "cat")
    listed = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nzebra:250,50,83::\n:1,2,3::\ncat:1,2,3:ear,tail:run\n"
    (top / "labelmap.txt").write_text(listed)
    data = open_data(tmp_path)
    assert data.classes == ("zebra", "cat", "ant")
    assert data.notes["labels have names that cannot be used"] == 1


def test_a_labelmap_may_have_classes_of_any_name(tmp_path):
    top = kit(tmp_path, xml(OBJECT.format("").replace("cat", "background")))
    listed = "# label:color_rgb:parts:actions\nvoid:224,224,192::\nzebra:::\n#1:::\nbackground:9,0,0::\na:b:::\nvoid:::\n"
    (top / "labelmap.txt").write_text(listed)
    assert open_data(tmp_path).classes == ("zebra", "#1", "background", "a:b", "void", "cat")
