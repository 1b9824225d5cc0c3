"""Sources: which items, in which order, under which ids; what cannot be used keeps its place and fails alone."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from paligemma.errors import InputError
from paligemma.image import Clip
from paligemma.jobs.items import Ways, count, items
from paligemma.nano.films import film
from paligemma.nano.world import Split

from .making import album, lines, png


def ids(source: object) -> list[str]:
    return [item.id for item in items(str(source))]


def test_a_folder_is_all_pictures_below_it_in_natural_order(tmp_path):
    folder = album(tmp_path / "a", 12)
    album(folder / "b", 2)
    (folder / ".hidden.png").write_bytes(png())
    (folder / "notes.txt").write_text("no picture")
    lines(folder / "metadata.jsonl", {"image": "0.png"})
    assert ids(folder) == [*(f"{number}.png" for number in range(12)), "b/0.png", "b/1.png"]
    assert [item.open().size for item in items(folder)][:2] == [(8, 6), (9, 6)]


def test_ids_do_not_depend_on_where_the_folder_is_seen_from(tmp_path, monkeypatch):
    folder = album(tmp_path / "a", 2)
    monkeypatch.chdir(tmp_path)
    assert ids("a") == ids(folder) == ids(tmp_path / "a" / "*.png") == ids("a/*.png") == ["0.png", "1.png"]
    assert ids("**/*.png") == ["a/0.png", "a/1.png"]
    assert ids(folder / "1.png") == ["1.png"]


def test_a_folder_without_pictures_is_its_tables(tmp_path):
    album(tmp_path / "pictures", 1)
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in ("10.jsonl", "9.jsonl"):
        lines(folder / name, {"image": "0.png"}, {"image": "0.png"})
    assert ids(folder) == ["9.jsonl:1", "9.jsonl:2", "10.jsonl:1", "10.jsonl:2"]
    (tmp_path / "link").symlink_to(folder)
    for source in (folder, tmp_path / "link", folder / "*"):
        assert [item.id for item in items(source, without=folder / "9.jsonl")] == ["10.jsonl:1", "10.jsonl:2"]
    assert len(list(items(folder, without=folder / "none.jsonl"))) == count(folder, Ways()) == 4


@pytest.mark.parametrize("source", ["none", "none/*.png", "empty"])
def test_nothing_is_said_at_once(source, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no such|no picture"):
        items(tmp_path / source)


@pytest.mark.parametrize("name", ["1.png", "rows.jsonl"])
def test_a_folder_that_cannot_be_read_is_left_out_with_a_word(tmp_path, shut, name):
    (tmp_path / "1.png").write_bytes(png())
    (tmp_path / "rows.jsonl").write_text('{"id": "row", "image": "1.png"}')
    (tmp_path / ({"1.png", "rows.jsonl"} - {name}).pop()).rename(tmp_path.parent / "elsewhere")
    (tmp_path / "lost+found").mkdir()
    shut(tmp_path / "lost+found")
    with pytest.warns(UserWarning, match=r"lost\+found: this folder cannot be read \(Permission denied\): left out"):
        assert [item.id for item in items(tmp_path)] == [{"1.png": "1.png", "rows.jsonl": "row"}[name]]


def test_a_broken_picture_fails_when_it_is_opened_and_says_its_name(tmp_path):
    folder = album(tmp_path / "a", 3, broken=(1,))
    broken = list(items(folder))[1]
    with pytest.raises(InputError, match=r"1\.png"):
        broken.open()


def test_an_id_that_was_there_before_fails_alone(tmp_path):
    album(tmp_path / "a", 2)
    table = lines(tmp_path / "a" / "t.jsonl", {"id": 7, "image": "0.png"}, {"id": "7", "image": "1.png"}, {"image": "1.png"})
    first, second, third = items(table)
    assert (first.id, third.id) == ("7", "t.jsonl:3")
    assert second.id not in (first.id, third.id)
    with pytest.raises(InputError, match="was there before") as raised:
        second.open()
    assert raised.value.code == "duplicate"
    assert third.open().size == (9, 6)


def test_a_video_is_a_clip(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 112
        for pixels in film(Split.TEST, 1, 0).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    (item,) = items(tmp_path, Ways(frames=3))
    found = item.open()
    assert item.video == path
    assert isinstance(found, Clip)
    assert len(found.frames) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_name_that_is_no_text_has_an_id_that_is(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff.png")).write_bytes(png())
    (item,) = items(tmp_path)
    assert item.id.encode().decode() == "a\\xff.png"
    assert item.open().size == (8, 6)


def test_items_can_be_sent_to_another_process(tmp_path):
    folder = album(tmp_path / "a", 1)
    table = lines(folder / "t.jsonl", {"image": "0.png", "more": [1]}, b"no json\n")
    for item in [*items(folder), *items(table)]:
        sent = pickle.loads(pickle.dumps(item))
        assert sent == item
    assert sent.where.endswith("t.jsonl:2")
    with pytest.raises(InputError, match=r"t\.jsonl:2"):
        sent.open()


def test_folders_are_read_as_they_are_needed(tmp_path, monkeypatch):
    for name in "abc":
        album(tmp_path / name, 1)
    looked: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(Path(path).name) or scandir(path))
    next(items(tmp_path))
    assert "c" not in looked
