"""Rows of JSON lines and Parquet: their ids, pictures and other columns; each fault is that of its row, with its place."""

from __future__ import annotations

import base64
import io
import json
import pickle

import pytest
from PIL import Image

from paligemma.errors import InputError
from paligemma.image import Clip
from paligemma.jobs import tables
from paligemma.jobs.items import Ways, count, items

from .making import album, answered, lines, png

pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path):
    return album(tmp_path / "a", 3)


def code(item) -> str:
    with pytest.raises(InputError) as raised:
        item.open()
    assert item.where in raised.value.message
    return raised.value.code


def test_a_row_names_its_picture_and_keeps_the_rest(folder):
    address = "data:image/png;base64," + base64.b64encode(png(20)).decode()
    table = lines(
        folder / "t.jsonl",
        {"id": "x", "image": "1.png", "price": 1.5, "tags": ["a"], "more": None},
        {"image": address, "shop": "b"},
        {"images": ["0.png", "1.png"]},
    )
    first, second, third = items(table)
    assert (first.id, first.kept, first.open().size) == ("x", {"price": 1.5, "tags": ["a"], "more": None}, (9, 6))
    assert (second.id, second.kept, second.open().size) == ("t.jsonl:2", {"shop": "b"}, (20, 6))
    clip = third.open()
    assert isinstance(clip, Clip)
    assert [frame.size for frame in clip.frames] == [(8, 6), (9, 6)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"no json\n", "json"),
        (b'{"image": "\xff.png"}\n', "encoding"),
        (b'\xef\xbb\xbf{"image": "0.png"}\n', "encoding"),  # in the middle of a file
        (b"[1]\n", "field"),
        (b'{"caption": "no picture"}\n', "field"),
        (b'{"image": ""}\n', "field"),
        (b'{"image": 3}\n', "field"),
        (b'{"id": [1], "image": "0.png"}\n', "field"),
        (b'{"id": true, "image": "0.png"}\n', "field"),
        (b'{"id": 1.5, "image": "0.png"}\n', "field"),
        (b'{"id": NaN, "image": "0.png"}\n', "field"),
        (b'{"image": "0.png", "more": ' + b"[" * 101 + b"]" * 101 + b"}\n", "field"),
        (b'{"image": ["0.png", 3]}\n', "field"),
        (b'{"image": []}\n', "field"),
        (b'{"image": "none.png"}\n', "missing"),
        (b'{"image": "../b.png"}\n', "path"),
        (b'{"image": "/etc/passwd"}\n', "path"),
        (b'{"image": "link.png"}\n', "path"),
        (b'{"image": "https://example.org/a.png"}\n', "path"),
        (b'{"image": "data:image/png;base64,????"}\n', "bad_address"),
        (b'{"image": "data:text/html,hello"}\n', "bad_address"),
        (b'{"image": "' + b"a" * 3000 + b'"}\n', "too_long"),
    ],
)
def test_a_fault_is_that_of_its_line(line, why, folder, monkeypatch):
    monkeypatch.setattr(tables, "MOST_BYTES", 2000)
    (folder.parent / "b.png").write_bytes(png())
    (folder / "link.png").symlink_to(folder.parent / "b.png")
    table = lines(folder / "t.jsonl", {"image": "0.png"}, b"\n", line, {"image": "1.png"})
    before, broken, after = items(table)
    assert code(broken) == why
    assert broken.where == f"{table}:3"
    assert (before.open().size, after.id, after.open().size) == ((8, 6), "t.jsonl:4", (9, 6))


@pytest.mark.parametrize(("id", "is_"), [(b"7", "7"), (b"7.0", "7"), (b'"7.0"', "7.0"), (b"null", "t.jsonl:1")])
def test_the_id_of_a_row(id, is_, folder):
    (item,) = items(lines(folder / "t.jsonl", b'{"id": ' + id + b', "image": "0.png"}\n'))
    assert (item.id, item.kept, item.open().size) == (is_, {}, (8, 6))


def test_what_is_nested_a_hundred_deep_is_kept(folder):
    deep = b"[" * 100 + b"]" * 100
    (item,) = items(lines(folder / "t.jsonl", b'{"image": "0.png", "more": ' + deep + b"}\n"))
    (row,) = answered(item).rows[:1]
    assert json.dumps(row["kept"]["more"]).encode() == deep


def test_marks_and_line_ends_of_windows(folder):
    table = lines(folder / "t.jsonl", b'\xef\xbb\xbf{"image": "0.png"}\r\n', b'{"image": "1.png"}')
    assert [item.open().size for item in items(table)] == [(8, 6), (9, 6)]


def test_a_root_is_where_pictures_may_lie(folder):
    other = folder.parent / "tables"
    other.mkdir()
    table = lines(other / "t.jsonl", {"image": "../a/0.png"})
    (item,) = items(table)
    assert code(item) == "path"
    (item,) = items(table, Ways(root=folder.parent))
    assert item.open().size == (8, 6)


def test_a_line_that_is_too_long_is_not_held(folder, monkeypatch):
    monkeypatch.setattr(tables, "MOST_BYTES", 100)
    asked: list[int] = []

    class Reading(io.BytesIO):
        def readline(self, size=-1):
            asked.append(size)
            return super().readline(size)

    found = list(tables._lines(Reading(b"a" * (5 << 20) + b"\nb\n")))
    assert found == [(1, None), (2, b"b")]
    assert max(asked) <= 1 << 20
    assert min(asked) > 0


def parquet(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_holds_pictures_or_names_them(folder):
    import pyarrow.parquet  # noqa: F401

    nested = [{"bytes": png(30 + number), "path": None} for number in range(40)]
    table = parquet(folder / "t.parquet", {"image": nested, "label": [None, *range(39)]})
    found = list(items(table))
    assert count(table, Ways()) == len(found)
    assert [item.open().size[0] for item in found] == list(range(30, 70))
    assert [item.id for item in found[:2]] == ["t.parquet:0", "t.parquet:1"]
    assert [item.kept for item in found[:2]] == [{}, {"label": 0}]

    named = parquet(folder / "u.parquet", {"id": ["a", "b"], "image": ["0.png", "none.png"]})
    first, second = items(named)
    assert (first.id, first.open().size) == ("a", (8, 6))
    assert code(second) == "missing"

    plain = parquet(folder / "v.parquet", {"image": [png(11), b"no picture"], "blob": [b"x", b"y"]})
    first, second = items(plain)
    assert (first.open().size, first.kept) == ((11, 6), {})
    assert code(second) == "image_unknown_format"


def test_a_list_of_pictures_as_hugging_face_has_it(folder):
    one, two = {"bytes": png(20), "path": "x.png"}, {"bytes": None, "path": "0.png"}
    first, second, third = items(parquet(folder / "t.parquet", {"images": [[one, two], [one], []]}))
    clip = first.open()
    assert isinstance(clip, Clip)
    assert [frame.size for frame in clip.frames] == [(20, 6), (8, 6)]
    assert pickle.loads(pickle.dumps(second)).open().size == (20, 6)
    assert code(third) == "field"
    (plain,) = items(parquet(folder / "u.parquet", {"images": [[png(11), png(12)]]}))
    assert [frame.size for frame in plain.open().frames] == [(11, 6), (12, 6)]


def test_bytes_are_not_kept_however_deep(folder):
    other = {"bytes": png(), "path": "x.png", "size": {"raw": b"x", "width": 8}}
    table = parquet(folder / "t.parquet", {"image": [png(9)], "depth": [other], "views": [[other]], "parts": [[b"x"]]})
    (item,) = items(table)
    left = {"path": "x.png", "size": {"width": 8}}
    assert item.kept == {"depth": left, "views": [left], "parts": []}
    assert item.open().size == (9, 6)


def test_no_parquet_at_all(folder):
    (folder / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="no Parquet") as raised:
        list(items(folder / "t.parquet"))
    assert "copy it again" in (raised.value.hint or "")
    with pytest.raises(InputError, match="no Parquet"):
        count(folder / "t.parquet", Ways())


def test_a_picture_is_decoded_as_it_is(folder):
    """What was written is what is opened: colours, not only sizes."""
    Image.new("RGB", (4, 4), (10, 20, 30)).save(folder / "c.png")
    (item,) = items(lines(folder / "t.jsonl", {"image": "c.png"}))
    assert item.open().getpixel((0, 0)) == (10, 20, 30)
