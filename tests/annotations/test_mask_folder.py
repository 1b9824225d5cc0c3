"""Masks of classes, with class lists in each spelling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.data.class_lists import class_list
from paligemma.data.opening import open_data, splits
from paligemma.data.records import DataSet
from paligemma.errors import InputError
from tests.annotations.world import SIZE, codes, ellipse, outline, picture

CAT, DOG, SECOND = ellipse((4, 6, 20, 30)), ellipse((30, 10, 50, 40)), ellipse((52, 4, 62, 12))


def values(cat: int = 1, dog: int = 2) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[CAT], mask[DOG | SECOND] = cat, dog
    mask[0, 0] = 255
    return mask


def folder(top: Path, mask: np.ndarray, classes: str = "background\ncat\ndog\n", name: str = "classes.txt") -> Path:
    picture(top / "images" / "a.jpg")
    picture(top / "images" / "b.jpg")
    (top / "masks").mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(top / "masks" / "a.png")
    Image.fromarray(np.zeros_like(mask)).save(top / "masks" / "b.png")
    (top / name).write_text(classes)
    return top


def test_a_class_is_one_thing(tmp_path):
    data = open_data(folder(tmp_path, values()))
    assert (data.format, data.task, data.classes) == ("mask-folder", "segment", ("cat", "dog"))
    assert [(thing.label, thing.box) for thing in data.records[0].things] == [("cat", (4, 6, 20, 30)), ("dog", (30, 4, 62, 40))]
    assert (outline(data.records[0], 0).mask(*SIZE) == CAT).all()
    assert (outline(data.records[0], 1).mask(*SIZE) == DOG | SECOND).all()
    assert data.records[1].things == ()
    assert data.notes == {}


def test_connected_parts(tmp_path):
    mask = values()
    mask[40, 2] = 1
    data = open_data(folder(tmp_path, mask), connected=True)
    assert [thing.label for thing in data.records[0].things] == ["cat", "cat", "dog", "dog"]
    assert sorted(thing.box for thing in data.records[0].things if thing.label == "dog") == [(30, 10, 50, 40), (52, 4, 62, 12)]
    covered = [outline(data.records[0], i).mask(*SIZE) for i in range(4)]
    assert (np.logical_or.reduce(covered) == (mask == 1) | (mask == 2)).all()


def test_specks_are_counted(tmp_path):
    picture(tmp_path / "images" / "a.jpg", (200, 200))
    mask = np.zeros((200, 200), np.uint8)
    mask[50:90, 50:90], mask[5, 5] = 1, 1
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    data = open_data(tmp_path, connected=True)
    assert [thing.box for thing in data.records[0].things] == [(50, 50, 90, 90)]
    assert data.notes == {"parts of masks are specks and were not used": 1}


COLOURS = {"cat": (255, 0, 0), "dog": (0, 128, 7)}


def coloured() -> np.ndarray:
    mask = np.zeros((*SIZE[::-1], 3), np.uint8)
    mask[CAT], mask[DOG] = COLOURS["cat"], COLOURS["dog"]
    return mask


@pytest.mark.parametrize(
    ("name", "text", "in_colours"),
    [
        ("classes.txt", "background\ncat\ndog", False),
        ("class_names.txt", "__ignore__\n_background_\ncat\ndog\n", False),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n", False),
        ("labels.json", '{"0": "background", "1": "cat", "2": "dog"}', False),
        ("labels.json", '{"cat": 1, "dog": 2}', False),
        ("labels.json", '["background", "cat", "dog"]', False),
        ("labels.json", '[{"name": "cat", "id": 1}, {"name": "dog", "id": 2}]', False),
        ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\ncat,255,0,0\ndog,0,128,7\n", True),
        ("label_colors.txt", "0 0 0\tVoid\n255 0 0\tcat\n0 128 7\tdog\n", True),
        ("palette.json", json.dumps(COLOURS), True),
        ("palette.json", '{"cat": "#ff0000", "dog": "#008007"}', True),
        ("palette.json", '[{"label": "cat", "color": [255, 0, 0]}, {"label": "dog", "color": [0, 128, 7]}]', True),
    ],
)
def test_class_lists(tmp_path, name, text, in_colours):
    data = open_data(folder(tmp_path, coloured() if in_colours else values(), text, name))
    assert data.classes == ("cat", "dog")
    assert (outline(data.records[0], [thing.label for thing in data.records[0].things].index("cat")).mask(*SIZE) == CAT).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", ""),
        ("classes.txt", "background\ncat; dog\n"),
        ("classes.txt", "cat\n255 0 0 dog\n"),
        ("label_colors.txt", "300 0 0 cat\n"),
        ("labels.json", "{"),
        ("labels.json", "7"),
        ("labels.json", '{"cat": [1, 2]}'),
        ("labels.json", '[{"name": "cat"}]'),
        ("labels.json", '{"cat": 1, "dog": 1}'),
        ("classes.csv", "a,b\n1,cat\n"),
        ("classes.csv", "value,class\nx,cat\n"),
        ("classes.csv", ""),
    ],
)
def test_lists_that_are_none(tmp_path, name, text):
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        class_list(text.encode(), tmp_path / name)


@pytest.mark.parametrize("value", [1, 255])
def test_a_single_class_is_everything_but_zero(tmp_path, value):
    data = open_data(folder(tmp_path, CAT.astype(np.uint8) * value, "cat\n"))
    (thing,) = data.records[0].things
    assert thing.label == "cat"
    assert (outline(data.records[0]).mask(*SIZE) == CAT).all()


def broken(top: Path, mask: np.ndarray, classes: str = "background\ncat\ndog\n") -> DataSet:
    return open_data(folder(top, mask, classes), max_bad_share=1)


def test_a_value_without_a_class(tmp_path):
    data = broken(tmp_path, values(dog=9))
    assert codes(data) == {"images/a.jpg": "category"}
    assert "the value 9" in data.faults[0].detail


def test_what_has_no_partner(tmp_path):
    top = folder(tmp_path, values())
    (top / "masks" / "a.png").rename(top / "masks" / "c.png")
    picture(top / "images" / "d.jpg")
    (top / "masks" / "d.png").write_bytes(b"no picture")
    data = open_data(top, max_bad_share=1)
    assert codes(data) == {"images/a.jpg": "missing", "masks/c.png": "missing", "images/d.jpg": "outline"}
    assert [record.id for record in data.records] == ["images/b.jpg"]


def test_a_mask_of_another_size(tmp_path):
    top = folder(tmp_path, values())
    Image.fromarray(values()[:40]).save(top / "masks" / "a.png")
    data = open_data(top, max_bad_share=1)
    assert codes(data) == {"images/a.jpg": "outline"}
    assert "64 x 40" in data.faults[0].detail
    Image.fromarray(coloured()).save(top / "masks" / "a.png")
    assert codes(open_data(top, max_bad_share=1)) == {"images/a.jpg": "outline"}
    Image.fromarray(np.uint8(CAT) * 1 + np.uint8(DOG) * 90).save(top / "masks" / "a.png")
    (top / "classes.txt").write_text("cat\n")
    assert codes(open_data(top, max_bad_share=1)) == {"images/a.jpg": "outline"}  # one name, two values


def test_a_list_that_forgets_the_background(tmp_path):
    """It is said, because everything that is no object would be a cat."""
    data = broken(tmp_path, values(cat=1, dog=2), "cat\ndog\n")
    assert codes(data) == {"images/a.jpg": "category"}
    assert "the background comes first" in data.faults[0].detail
    assert data.notes == {"lists of classes say that pixels of value 0 are 'cat', and not background": 1}


def test_masks_beside_the_pictures(tmp_path):
    """Roboflow's export."""
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.jpg")
        Image.fromarray(values()).save(tmp_path / split / "a_mask.png")
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    assert splits(tmp_path) == ("train", "valid")
    data = open_data(tmp_path, split="valid")
    assert [record.id for record in data.records] == ["valid/a.jpg"]
    assert len(data.records[0].things) == 2


def test_splits_inside(tmp_path):
    top = folder(tmp_path, values())
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (top / kind / split).mkdir()
            for file in list((top / kind).glob("*.*")):
                (top / kind / split / file.name).write_bytes(file.read_bytes())
    for kind in ("images", "masks"):
        for file in (top / kind).glob("*.*"):
            file.unlink()
    assert splits(top) == ("train", "valid")
    assert len(open_data(top, split="valid")) == 2
