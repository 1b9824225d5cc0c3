"""Names of splits in names of files and folders."""

from __future__ import annotations

import pytest

from paligemma.data.layout import annotation_parts, canonical, picture_folder, split_folders, split_named
from paligemma.errors import UsageError
from tests.annotations.world import picture


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017", "train"), ("_annotations.valid", "valid"), ("COCO_val2014_x", "valid"), ("dev", "valid"),
        ("test-00000-of-1", "test"), ("validation", "valid"), ("trainval", "trainval"), ("Train", "train"), ("metadata", ""),
        ("trained", ""), ("latest", ""), ("", ""),
    ],
)  # fmt: skip
def test_splits_in_names(name, split):
    assert split_named(name) == split


def test_canonical_names():
    assert [canonical(name) for name in ("val", "DEV", "train", "mine")] == ["valid", "valid", "train", "mine"]


def test_split_folders(tmp_path):
    for name in ("val", "train", "images", ".test", "trainings"):
        (tmp_path / name).mkdir()
    assert list(split_folders(tmp_path).items()) == [("train", tmp_path / "train"), ("valid", tmp_path / "val")]


def test_files_of_one_split(tmp_path):
    parts = annotation_parts([tmp_path / "val.json", tmp_path / "readme.json", tmp_path / "train.json"], "files")
    assert [(part.split, part.files[0].name) for part in parts] == [("train", "train.json"), ("valid", "val.json")]
    with pytest.raises(UsageError, match=r"several files could be meant for train: a_train\.json, b_train\.json"):
        annotation_parts([tmp_path / "a_train.json", tmp_path / "b_train.json"], "files")


def test_the_folder_of_the_pictures(tmp_path):
    picture(tmp_path / "images" / "a.png")
    folders = [tmp_path, tmp_path / "images"]
    assert picture_folder(["none.png", "a.png"], folders) == tmp_path / "images"
    assert picture_folder(["/a.png", "", "x\0"], folders) == tmp_path
