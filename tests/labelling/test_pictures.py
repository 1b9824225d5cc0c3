"""Names and files of pictures beside their labels."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from paligemma.errors import InputError
from paligemma.image import Clip
from paligemma.jobs.items import Item, items
from paligemma.labelling.pictures import LONGEST, Names, put


def test_names_are_readable_and_no_two_alike():
    names = Names()
    ids = ["a.jpg", "holiday/a 1.jpg", "a.png", "A.JPG", "shard.tar/0001", "rows.jsonl:3", "../../etc/passwd", "???", "ü" * 300, "ü" * 301]
    found = [names.take(id) for id in ids]
    assert found[:2] == ["a", "holiday_a_1"]
    assert found[4:7] == ["shard.tar_0001", "rows.jsonl_3", "etc_passwd"]
    assert len({name.casefold() for name in found}) == len(ids)
    assert all(name and not set(name) & set('/\\?* "') and len(name.encode()) <= LONGEST + 13 for name in found)


def test_names_stay_from_run_to_run():
    first, second = Names(), Names()
    assert [first.take(id) for id in ("a.jpg", "a.png")] == [second.take(id) for id in ("a.jpg", "a.png")]


def test_a_file_is_linked(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "in" / "a.JPG", "jpeg")
    (item,) = items(tmp_path / "in")
    assert put(item, tmp_path, "x") == "x.jpg"
    assert os.path.samefile(tmp_path / "x.jpg", tmp_path / "in" / "a.JPG")


def test_where_the_disk_has_no_links_it_is_copied(tmp_path, monkeypatch):
    def refuse(*names: object) -> None:
        raise OSError("no links here")

    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "in" / "a.png")
    (item,) = items(tmp_path / "in")
    monkeypatch.setattr(os, "link", refuse)
    put(item, tmp_path, "x")
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "in" / "a.png").read_bytes()


def test_what_few_tools_open_and_what_is_no_file_becomes_a_png(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "in" / "a.gif")
    (item,) = items(tmp_path / "in")
    made = Item("row", "table:1", _open=lambda: Image.new("RGB", (5, 4)))
    assert [put(item, tmp_path, "x"), put(made, tmp_path, "y")] == ["x.png", "y.png"]
    assert [Image.open(tmp_path / name).size for name in ("x.png", "y.png")] == [(8, 6), (5, 4)]


def test_what_is_not_there_any_more_and_what_is_several(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "in" / "a.png")
    (item,) = items(tmp_path / "in")
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png: it is not there any more"):
        put(item, tmp_path, "x")
    with pytest.raises(InputError, match="found several"):
        put(Item("row", "table:1", _open=lambda: Clip((Image.new("RGB", (5, 4)),) * 2)), tmp_path, "y")
