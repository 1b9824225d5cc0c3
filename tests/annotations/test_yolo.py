"""YOLO, written by supervision and by hand; each line that can be broken."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from paligemma.data.opening import open_data, splits
from paligemma.data.records import DataSet
from paligemma.errors import InputError, UsageError
from tests.annotations.world import CLASSES, SIZE, TRUTH, codes, ellipse, iou, outline, picture, pictures, supervised, things, turned


def by_supervision(folder: Path, *, masks: bool = False) -> Path:
    written = supervised(folder / "in", masks=masks)
    written.as_yolo(str(folder / "set" / "images"), str(folder / "set" / "labels"), str(folder / "set" / "data.yaml"))
    return folder / "set"


def test_boxes_by_supervision(tmp_path):
    data = open_data(by_supervision(tmp_path))
    assert (data.format, data.task, data.classes) == ("yolo", "detect", tuple(CLASSES))
    assert list(things(data)) == list(TRUTH)
    for name, found in things(data).items():
        assert [label for label, _ in found] == [label for label, _ in TRUTH[name]]
        for (_, box), (_, expected) in zip(found, TRUTH[name], strict=True):
            assert box == pytest.approx(expected, abs=0.01)
    assert data.records[0].id == "images/a.png"


def test_polygons_by_supervision(tmp_path):
    data = open_data(by_supervision(tmp_path, masks=True), task="segment")
    for record in data.records:
        for i, (_, box) in enumerate(TRUTH[record.pictures[0].name]):
            assert iou(outline(record, i).mask(*SIZE), ellipse(box)) > 0.8


NAMES = "names: [cat, dog]\n"


def yolo(folder: Path, labels: str | bytes, description: str = NAMES) -> DataSet:
    pictures(folder / "images")
    (folder / "data.yaml").write_text(description)
    (folder / "labels").mkdir()
    for name in ("b", "c", "d"):
        (folder / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (folder / "labels" / "a.txt").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    return open_data(folder, max_bad_share=1)


@pytest.mark.parametrize(
    ("line", "label", "box"),
    [
        ("0 0.5 0.5 0.25 0.5", "cat", (24, 12, 40, 36)),
        ("1 0.5 0.5 1 1\n", "dog", (0, 0, 64, 48)),
        ("1  0.5\t0.5 1.000001 1.000001\r\n\r\n", "dog", (0, 0, 64, 48)),
        ("0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", "cat", (16, 12, 48, 36)),  # an oriented box, or a polygon of four
        ("\ufeff0 0.5 0.5 0.25 0.5", "cat", (24, 12, 40, 36)),
    ],
)
def test_lines(tmp_path, line, label, box):
    (thing,) = yolo(tmp_path, line).records[0].things
    assert (thing.label, thing.box) == (label, box)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("2 0.5 0.5 0.25 0.5", "category"),
        ("-1 0.5 0.5 0.25 0.5", "category"),
        ("0.5 0.5 0.5 0.25 0.5", "category"),
        ("nan 0.5 0.5 0.25 0.5", "category"),
        ("cat 0.5 0.5 0.25 0.5", "field"),
        ("0 0.5 0.5 0.25", "field"),
        ("0 0.5 0.5 0.25 0.5 0.9", "field"),  # a prediction with its score
        ("0", "field"),
        ("0 0.5 0.5 -0.25 0.5", "box"),
        ("0 0.5 0.5 0 0.5", "box"),
        ("0 32 24 16 24", "box"),  # pixels
        ("0 0.5 0.5 1.5 0.5", "box"),
        ("0 0.5 0.5 nan 0.5", "box"),
        ("0 inf 0.5 0.2 0.5", "box"),
        ("0 0.1 0.1 0.5 0.1 1.5 0.9", "outline"),
        ("0 0.1 0.1 0.5 nan 0.5 0.9", "outline"),
        (b"0 0.5 0.5 0.25 0.5\xff", "encoding"),
    ],
)
def test_broken_lines(tmp_path, line, code):
    data = yolo(tmp_path, line)
    assert codes(data) == {"images/a.png": code}
    assert data.faults[0].where == "labels/a.txt"
    assert data.faults[0].detail.startswith("line 1: ")
    assert len(data.records) == 3


def test_pictures_without_labels_and_labels_without_pictures(tmp_path):
    folder = by_supervision(tmp_path)
    (folder / "labels" / "d.txt").unlink(missing_ok=True)
    (folder / "labels" / "e.txt").write_text("0 0.5 0.5 0.25 0.5")
    data = open_data(folder, max_bad_share=1)
    assert codes(data) == {"labels/e.txt": "missing"}
    assert data.notes == {"pictures have no label file and were taken as empty": 1}
    assert len(data) == 4


def divided(folder: Path, description: str, layout: str = "{}/images") -> Path:
    for split in ("train", "valid", "test"):
        place = folder / layout.format(split)
        picture(place / f"{split}.png")
        label = Path(*("labels" if part == "images" else part for part in place.relative_to(folder).parts), f"{split}.txt")
        (folder / label).parent.mkdir(parents=True, exist_ok=True)
        (folder / label).write_text("1 0.5 0.5 0.25 0.5")
    (folder / "data.yaml").write_text(description + NAMES)
    return folder


@pytest.mark.parametrize(
    ("description", "layout"),
    [
        ("train: ../train/images\nval: ../valid/images\ntest: ../test/images\n", "{}/images"),  # Roboflow
        ("path: ../datasets/thing\ntrain: images/train\nval: images/valid\ntest: images/test\n", "images/{}"),  # Ultralytics
        ("path: /somewhere/else\ntrain: images/train\nval: [images/valid]\ntest: images/test\n", "images/{}"),
        ("", "{}/images"),
        ("", "images/{}"),
        ("", "{}"),
    ],
)
def test_splits(tmp_path, description, layout):
    folder = divided(tmp_path / "set", description, layout)
    assert splits(folder) == ("train", "valid", "test")
    data = open_data(folder, split="val")
    assert [record.pictures[0].name for record in data.records] == ["valid.png"]
    assert data.records[0].things[0].label == "dog"
    assert data.records[0].about == {"split": "valid"}
    assert len(open_data(folder / "data.yaml", split="all")) == 3


def test_a_split_that_is_not_there(tmp_path):
    folder = divided(tmp_path / "set", "train: ../train/images\nval: ../valid/images\ntest: ../other/images\n")
    assert splits(folder) == ("train", "valid")


def test_lists_of_pictures(tmp_path):
    folder = divided(tmp_path / "set", "train: train.txt\nval: lists/val.txt\n", "images/{}")
    (folder / "train.txt").write_text("./images/train/train.png\n./images/test/test.png\nimages/train/none.png\n../../x.png\n")
    (folder / "lists").mkdir()
    (folder / "lists" / "val.txt").write_text("images/valid/valid.png\n")
    data = open_data(folder, split="train", max_bad_share=1)
    assert [record.id for record in data.records] == ["images/train/train.png", "images/test/test.png"]
    assert codes(data) == {"train.txt:3": "missing", "train.txt:4": "path"}
    assert len(open_data(folder, split="valid")) == 1


@pytest.mark.parametrize("place", ["../outside/images", "/"])
def test_folders_outside_are_not_read(tmp_path, place):
    picture(tmp_path / "outside" / "images" / "x.png")
    divided(tmp_path / "set", f"train: {place}\nval: valid/images\n")
    assert splits(tmp_path / "set") == ("valid",)


def test_classes_without_yaml(tmp_path):
    folder = by_supervision(tmp_path)
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("cat\ndog\n\n")
    assert open_data(folder).classes == ("cat", "dog")


def test_a_darknet_folder(tmp_path):
    """Numbers beside the pictures are labels, and no captions."""
    pictures(tmp_path)
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    data = open_data(tmp_path)
    assert (data.format, things(data)["a.png"]) == ("yolo", [("dog", (24, 12, 40, 36))])


def test_a_picture_on_its_side_is_noted(tmp_path):
    """Numbers that are shares of width and height do not say which way up it was."""
    turned(tmp_path / "images" / "e.jpg")
    assert list(yolo(tmp_path, "0 0.5 0.5 0.5 0.5").notes)[-1].startswith("pictures are turned by their EXIF data")


def test_names_by_number_and_key_points(tmp_path):
    data = yolo(tmp_path, "7 0.5 0.5 0.25 0.5 0.1 0.1 2", "kpt_shape: [1, 3]\nnames:\n  0: cat\n  7: dog\n")
    assert data.records[0].things[0].label == "dog"
    assert data.classes == ("cat", "dog")
    assert "data sets have key points, which were not used" in data.notes


BOMB = (
    "a: &a [x, x]\n"
    + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghijkl"))
    + "names: *l\n"
)
"""Nine to the eleventh names, if one wrote them out."""


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("names: [cat, 'a;b']\n", "names of the classes"),
        ("names: 7\n", "names of the classes"),
        ("names: [cat\n", "broken YAML"),
        ("names: !!python/object/apply:os.system [echo]\n", "broken YAML"),
        ("- names\nnames: x\n", "broken YAML"),
        (BOMB, "names of the classes"),
    ],
)
def test_a_description_that_is_none(tmp_path, description, message):
    with pytest.raises(InputError, match=message):
        yolo(tmp_path, "", description)


def test_no_labels_and_several_descriptions(tmp_path):
    pictures(tmp_path / "images")
    (tmp_path / "data.yaml").write_text(NAMES)
    with pytest.raises(InputError, match="none of the 4 pictures has a label file"):
        open_data(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "one.yaml")
    (tmp_path / "two.yaml").write_text(NAMES)
    with pytest.raises(UsageError, match=r"one\.yaml, two\.yaml"):
        open_data(tmp_path)
