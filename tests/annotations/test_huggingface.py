"""Folders that Hugging Face's `datasets` writes itself."""

from __future__ import annotations

import sys

import pytest

from paligemma.data.opening import open_data, splits
from paligemma.errors import InputError, UsageError
from tests.annotations.world import codes, picture, pictures

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()


def table(folder, **others):
    """Two pictures, in the table itself."""
    pictures(folder)
    inside = [{"bytes": (folder / name).read_bytes(), "path": name} for name in ("a.png", "b.png")]
    return datasets.Dataset.from_dict({"image": inside, **others}).cast_column("image", datasets.Image())


def test_save_to_disk(tmp_path):
    table(tmp_path / "in", prefix=["x", "y"], suffix=["1", "2"], source=["s", None]).save_to_disk(str(tmp_path / "set"))
    data = open_data(tmp_path / "set", scratch=tmp_path / "scratch")
    assert (data.format, data.task) == ("huggingface", "run")
    assert [(record.prompt, record.answers, record.about) for record in data.records] == [("x", ("1",), {"source": "s"}), ("y", ("2",), {})]
    assert data.records[0].where == ".: row 0"
    for record, name in zip(data.records, ("a.png", "b.png"), strict=True):
        assert record.pictures[0].parent == tmp_path / "scratch"
        assert record.pictures[0].read_bytes() == (tmp_path / "in" / name).read_bytes()
    again = open_data(tmp_path / "set", scratch=tmp_path / "other")
    assert again.fingerprint == data.fingerprint
    assert [record.id for record in again.records] == [record.id for record in data.records]


def test_splits(tmp_path):
    both = datasets.DatasetDict(
        train=table(tmp_path / "in", question=["?", "?"], answers=[["a", "b"], ["c"]]), validation=table(tmp_path / "in", text=["x", "y"])
    )
    both.save_to_disk(str(tmp_path / "set"))
    assert splits(tmp_path / "set") == ("train", "valid")
    data = open_data(tmp_path / "set", split="validation", scratch=tmp_path / "scratch")
    assert [(record.id, record.task, record.answers) for record in data.records] == [
        ("valid/0", "caption", ("x",)),
        ("valid/1", "caption", ("y",)),
    ]
    assert open_data(tmp_path / "set", split="train", scratch=tmp_path / "scratch").records[0].answers == ("a", "b")
    assert open_data(tmp_path / "set", split="all", scratch=tmp_path / "scratch").task == "mixed"


def objects():
    return datasets.List({"bbox": datasets.List(datasets.Value("float32")), "category": datasets.ClassLabel(names=["cat", "dog"])})


def test_parquet_of_the_hub_with_class_labels(tmp_path):
    found = [[{"bbox": [4, 6, 16, 24], "category": 0}], [{"bbox": [0, 0, 64, 48], "category": 1}]]
    made = table(tmp_path / "in", objects=found).cast_column("objects", objects())
    (tmp_path / "set" / "data").mkdir(parents=True)
    for number in range(2):
        made.select([number]).to_parquet(str(tmp_path / "set" / "data" / f"train-0000{number}-of-00002.parquet"))
    made.to_parquet(str(tmp_path / "set" / "data" / "test-00000-of-00001.parquet"))
    (tmp_path / "set" / "README.md").write_text("a card")
    data = open_data(tmp_path / "set", split="train", scratch=tmp_path / "scratch")
    assert (data.task, data.classes) == ("detect", ("cat", "dog"))
    assert [[(thing.label, thing.box) for thing in record.things] for record in data.records] == [
        [("cat", (4, 6, 20, 30))],
        [("dog", (0, 0, 64, 48))],
    ]
    assert [record.id for record in data.records] == ["train/0", "train/1"]
    made.save_to_disk(str(tmp_path / "saved"))
    saved = open_data(tmp_path / "saved", scratch=tmp_path / "scratch")
    assert [record.things for record in saved.records] == [record.things for record in data.records]


def test_several_pictures_in_a_row(tmp_path):
    paths = [str(picture(tmp_path / "in" / f"{name}.png")) for name in "ab"]
    made = datasets.Dataset.from_dict({"images": [paths, paths[:1]], "prefix": ["x", "y"], "suffix": ["1", "2"]})
    made.cast_column("images", datasets.List(datasets.Image())).save_to_disk(str(tmp_path / "set"))
    data = open_data(tmp_path / "set", scratch=tmp_path / "scratch")
    assert [len(record.pictures) for record in data.records] == [2, 1]


def test_broken(tmp_path):
    (tmp_path / "set").mkdir()
    made = table(tmp_path / "in", prefix=["x", "y"], suffix=["1", None])
    made.save_to_disk(str(tmp_path / "set"))
    data = open_data(tmp_path / "set", scratch=tmp_path / "scratch", max_bad_share=1)
    assert codes(data) == {"1": "field"}
    (tmp_path / "set" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="no saved data set"):
        open_data(tmp_path / "set")


def test_without_the_library(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "data-00000-of-00001.arrow").touch()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="needs the package datasets"):
        open_data(tmp_path)
