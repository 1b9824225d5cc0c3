"""What is made of several calls to the file system: whole files or none, hashes of what was written, folders moved and removed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from pathlib import Path

import pytest

from paligemma.errors import UsageError
from paligemma.training import disk as module
from paligemma.training.disk import Content, Disk, hash_file, make_folders, move_into, read_file, remove_tree, replace_file, write_file


class Failing(Disk):
    """Refuses one kind of call."""

    def __init__(self, call: str):
        def refuse(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        setattr(self, call, refuse)


@pytest.fixture
def small_blocks(monkeypatch):
    """So that a few kilobytes take the ways of gigabytes: several blocks, hashed beside the disk's work."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(module, "_ASIDE_BYTES", 100)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("sizes", [[], [0], [1], [99, 100, 101], [1000], [1000, 1000], [3, 4096, 0, 777]], ids=str)
def test_a_file_is_written_hashed_and_read_back(tmp_path, sizes: list[int]):
    pieces = [os.urandom(size) for size in sizes]
    whole = b"".join(pieces)
    expected = Content(len(whole), hashlib.sha256(whole).hexdigest())
    path = tmp_path / "file"
    assert write_file(Disk(), path, [memoryview(piece) for piece in pieces]) == expected
    assert path.read_bytes() == whole
    for forget in (False, True):
        for size in (0, len(whole), 10 * len(whole)):
            assert hash_file(Disk(), path, size, forget=forget) == expected


def test_a_file_of_that_name_is_not_touched(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_file(Disk(), tmp_path / "file", [b"new"])
    assert (tmp_path / "file").read_bytes() == b"old"


class InParts(Disk):
    """A system that takes and gives few bytes at a time, as it may."""

    def create(self, path: Path):
        class Slow(io.FileIO):
            def write(self, data, /) -> int:
                return super().write(data[:7]) or 0

        return Slow(path, "xb")

    def read_into(self, file, buffer) -> int:
        return super().read_into(file, buffer[:5])


@pytest.mark.usefixtures("small_blocks")
def test_a_system_may_take_few_bytes_at_a_time(tmp_path):
    data = os.urandom(250)
    content = write_file(InParts(), tmp_path / "file", [data])
    assert (tmp_path / "file").read_bytes() == data
    assert hash_file(InParts(), tmp_path / "file", 250) == content
    assert read_file(InParts(), tmp_path / "file", 250) == data


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(Disk(), tmp_path / "file", [b"x"])
        replace_file(Disk(), tmp_path / "other", b"x")
        make_folders(Disk(), tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "other", "a", "a/b")] == [0o640, 0o640, 0o750, 0o750]


@pytest.mark.parametrize("call", ["create", "write", "sync", "close", "rename"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, call: str):
    path = tmp_path / "file"
    replace_file(Disk(), path, b"old")
    with pytest.raises(OSError, match="No space"):
        replace_file(Failing(call), path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    replace_file(Disk(), path, b"new and longer")
    assert path.read_bytes() == b"new and longer"


def test_reading_follows_no_link_and_has_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(Disk(), tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, at most 4"):
        read_file(Disk(), tmp_path / "file", 4)
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match="no plain file"):
            read_file(Disk(), tmp_path / name, 100)
    with pytest.raises(OSError, match="symbolic links"):
        Disk().open(tmp_path / "link")


def test_folders_are_made_where_they_lack(tmp_path):
    make_folders(Disk(), tmp_path / "a" / "b")
    make_folders(Disk(), tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"file is no folder"):
            make_folders(Disk(), path)


def test_nothing_is_replaced_by_what_is_moved(tmp_path):
    for content in ("first", "second", "third"):
        (tmp_path / "it").write_text(content)
        move_into(Disk(), tmp_path / "it", tmp_path / "box")
    assert {path.name: path.read_text() for path in (tmp_path / "box").iterdir()} == {"it": "first", "it-2": "second", "it-3": "third"}


def test_removing_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "file").write_text("x")
    (inside / "link").symlink_to(outside)
    (tmp_path / "top").symlink_to(outside)
    remove_tree(Disk(), inside)
    remove_tree(Disk(), tmp_path / "top")
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert os.listdir(outside) == ["kept"]
