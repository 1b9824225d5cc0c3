"""WebDataset's shards: neighbours of one name are a sample; nothing is unpacked; what is broken fails alone."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from paligemma.errors import InputError
from paligemma.jobs.items import items

from .making import png, shard


def test_samples_with_what_comes_with_them(tmp_path):
    path = shard(
        tmp_path / "s.tar",
        {
            "0001.png": png(8),
            "0001.json": b'{"licence": "CC0", "width": 8}',
            "0001.txt": b"ein Hund",
            "0001.npy": b"\xff\x00",
            "b/0002.seg.png": png(9),
            "b/0002.cls": b"3",
            "0003.jpeg": b"no picture",
            "../0004.png": png(10),
        },
    )
    found = list(items(path))
    assert [item.id for item in found] == ["s.tar/0001", "s.tar/b/0002", "s.tar/0003", "s.tar/../0004"]
    assert found[0].kept == {"licence": "CC0", "width": 8, "txt": "ein Hund"}
    assert found[1].kept == {"cls": "3"}
    assert [found[place].open().size for place in (0, 1, 3)] == [(8, 6), (9, 6), (10, 6)]
    with pytest.raises(InputError, match=r"s\.tar: 0003"):
        found[2].open()


def test_the_picture_is_the_one_without_a_second_name(tmp_path):
    members = {
        "1.depth.png": png(20),
        "1.png": png(8),
        "1.seg.png": png(21),
        "2.depth.png": png(22),
        "2.seg.png": png(23),
        "3.png": png(9),
        "3.webp": b"",
    }
    assert [item.open().size[0] for item in items(shard(tmp_path / "s.tar", members))] == [8, 22, 9]


DEEP = b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}"


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"a.txt": b"x"}, "missing"),
        ({"a.png": png(), "a.json": b"{"}, "json"),
        ({"a.png": png(), "a.json": DEEP}, "field"),
    ],
)
def test_a_sample_that_is_none(members, why, tmp_path):
    first, second = items(shard(tmp_path / "s.tar", {**members, "b.png": png()}))
    with pytest.raises(InputError) as raised:
        first.open()
    assert raised.value.code == why
    assert second.open().size == (8, 6)


def test_several_shards_in_their_order(tmp_path):
    for number in (10, 9):
        shard(tmp_path / f"{number}.tar", {"a.png": png(number)})
    assert [item.id for item in items(tmp_path)] == ["9.tar/a", "10.tar/a"]
    assert [item.open().size[0] for item in items(tmp_path / "*.tar")] == [9, 10]


def test_a_shard_that_is_cut_short_ends_with_an_item_that_fails(tmp_path):
    path = shard(tmp_path / "s.tar", {f"{number}.txt": b"x" * 3000 for number in range(5)} | {"9.png": png(200, 200)})
    whole = path.read_bytes()
    last = [item.id for item in items(path)][-1]
    assert last == "s.tar/9"
    path.write_bytes(whole[: 512 * 7 * 3 + 700])  # within the fourth
    found = list(items(path))
    assert [item.id for item in found] == ["s.tar/0", "s.tar/1", "s.tar/2", "s.tar/3", "s.tar/?"]
    with pytest.raises(InputError, match="broken"):
        found[-1].open()


@pytest.mark.parametrize("data", [b"no tar" * 200, gzip.compress(b"a" * 2000, mtime=0)], ids=["bytes", "packed bytes"])
def test_what_is_no_tar_is_refused(data, tmp_path):
    (tmp_path / "s.tar").write_bytes(data)
    with pytest.raises(InputError, match="no tar"):
        list(items(tmp_path / "s.tar"))


def test_members_are_not_remembered(tmp_path):
    path = shard(tmp_path / "s.tar", {f"{number}.png": b"" for number in range(3000)})
    found = items(path)
    next(found)
    tracemalloc.start()
    for _ in range(2000):
        next(found)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 2000 * 300, f"{used / 2000:.0f} bytes a sample"
