"""Pictures with texts beside them."""

from __future__ import annotations

import pytest

from paligemma.data.opening import open_data
from paligemma.errors import InputError
from tests.annotations.world import codes, picture, pictures


def test_captions(tmp_path):
    pictures(tmp_path)
    picture(tmp_path / "00001" / "10.png")
    texts = {"a.txt": "a cat\n", "b.txt": "\ufefftwo lines\nof text", "c.caption": " eine Kätze ", "d.txt": "d", "00001/10.txt": "deeper"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "README.txt").write_text("not a caption")
    data = open_data(tmp_path)
    assert (data.format, data.task) == ("caption-folder", "caption")
    assert {record.id: record.answers for record in data.records} == {
        "a.png": ("a cat",), "b.png": ("two lines\nof text",), "c.png": ("eine Kätze",), "d.png": ("d",), "00001/10.png": ("deeper",),
    }  # fmt: skip
    assert {record.prompt for record in data.records} == {"caption en"}


def test_broken(tmp_path):
    pictures(tmp_path)
    picture(tmp_path / "e.png")
    (tmp_path / "f.png").write_bytes(b"no picture")
    for name, text in {"a": b"a cat", "b": b"\xff", "c": b" \n", "f": b"f", "g": b"no picture"}.items():
        (tmp_path / f"{name}.txt").write_bytes(text)
    data = open_data(tmp_path, max_bad_share=1)
    assert codes(data) == {
        "b.png": "encoding",
        "c.png": "answer",
        "d.png": "answer",
        "e.png": "answer",
        "f.png": "picture",
        "g.txt": "missing",
    }
    assert [record.id for record in data.records] == ["a.png"]


def test_a_folder_that_cannot_be_read_is_a_fault(tmp_path, shut):
    for name in ("a", "shut/b"):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("a cat")
    shut(tmp_path / "shut")
    data = open_data(tmp_path, format="caption-folder", max_bad_share=1)
    assert (len(data.records), codes(data)) == (1, {"shut": "missing"})


def test_splits_and_tasks(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "a.png")
        (tmp_path / split / "a.txt").write_text(split)
    data = open_data(tmp_path, split="test", task="ocr")
    assert [(record.id, record.prompt, record.answers) for record in data.records] == [("test/a.png", "ocr", ("test",))]


def test_numbers_beside_pictures_are_no_captions(tmp_path):
    pictures(tmp_path)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.2\n")
    with pytest.raises(InputError, match="no known format"):
        open_data(tmp_path)
