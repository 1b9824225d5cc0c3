"""Names of pictures stay in their folder; sizes are those of the upright picture; each header is read once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from paligemma.data.pictures import Pictures, picture_size
from paligemma.data.records import Flaw
from paligemma.errors import ResourceError
from paligemma.image import Limits, open_image
from tests.annotations.world import picture, turned


@pytest.fixture
def folder(tmp_path):
    picture(tmp_path / "set" / "a.png")
    picture(tmp_path / "set" / "sub" / "b c ü.png")
    picture(tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", tmp_path / "set" / "link.png")
    os.symlink(tmp_path / "set" / "a.png", tmp_path / "set" / "inner.png")
    os.symlink(tmp_path, tmp_path / "set" / "up")
    return tmp_path / "set"


@pytest.mark.parametrize("name", ["a.png", "./a.png", "sub/b c ü.png", "sub/../a.png", "inner.png", "sub\\b c ü.png", "a.png/"])
def test_names_inside(folder, name):
    assert Pictures(folder).find(name, folder).is_file()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("/etc/passwd", "path"),
        ("C:\\x.png", "path"),
        ("\\\\server\\x.png", "path"),
        ("../outside.png", "path"),
        ("sub/../../outside.png", "path"),
        ("..\\outside.png", "path"),
        ("link.png", "path"),
        ("up/outside.png", "path"),
        ("a\0.png", "path"),
        ("x" * 5000 + ".png", "missing"),
        ("a/" * 3000 + ".png", "missing"),
        ("\ud800.png", "encoding"),
        ("none.png", "missing"),
        ("sub/none/x.png", "missing"),
        ("", "field"),
        (None, "field"),
        (3, "field"),
        (["a.png"], "field"),
    ],
)
def test_names_that_are_refused(folder, name, code):
    with pytest.raises(Flaw) as caught:
        Pictures(folder).find(name, folder)
    assert caught.value.code == code


def test_a_folder_that_a_person_names_is_allowed(folder):
    found = Pictures(folder)
    found.allow(folder.parent)
    assert found.find("outside.png", folder.parent).is_file()


def test_a_picture_on_its_side(tmp_path):
    path = turned(tmp_path / "x.jpg", (64, 48))
    assert picture_size(path) == ((48, 64), True)
    assert open_image(path).size == (48, 64)
    with pytest.raises(Flaw, match="EXIF") as caught:
        Pictures(tmp_path).size(path, (64, 48))
    assert caught.value.code == "size"
    assert Pictures(tmp_path).size(path, (48, 64)) == (48, 64)


def test_every_orientation_has_the_size_it_is_opened_with(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = picture(tmp_path / f"{orientation}.jpg", (64, 48), exif=exif)
        assert picture_size(path)[0] == open_image(path).size


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "picture"),
        (b"<!DOCTYPE html><html>", "picture"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "picture"),
    ],
)
def test_what_is_no_picture(tmp_path, data, code):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(Flaw) as caught:
        Pictures(tmp_path).size(tmp_path / "x.png")
    assert caught.value.code == code


def test_a_picture_that_is_cut_short_is_found_when_asked_for(tmp_path):
    whole = picture(tmp_path / "a.jpg", (200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert Pictures(tmp_path).size(tmp_path / "cut.jpg") == (200, 200)
    with pytest.raises(Flaw, match="cut short"):
        Pictures(tmp_path, strict=True).size(tmp_path / "cut.jpg")


def test_limits_and_folders(tmp_path):
    found = Pictures(tmp_path, limits=Limits(max_pixels=1000))
    with pytest.raises(Flaw, match="exceed"):
        found.size(picture(tmp_path / "a.png"))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(Flaw, match="folder"):
        found.size(tmp_path / "folder.png")


def test_a_picture_that_may_not_be_read(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png")

    def refusing(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refusing)  # permissions mean nothing to root
    with pytest.raises(Flaw) as caught:
        Pictures(tmp_path).size(path)
    assert caught.value.code == "missing"


def test_a_header_is_read_once(tmp_path, monkeypatch):
    path, looked = picture(tmp_path / "a.png"), []
    found = Pictures(tmp_path)
    look = found._look
    monkeypatch.setattr(found, "_look", lambda path: looked.append(path) or look(path))
    assert [found.size(path) for _ in range(3)] == [(64, 48)] * 3
    assert looked == [path]


def test_videos_are_not_opened(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"not looked at")
    (tmp_path / "y.mp4").touch()
    Pictures(tmp_path).check(tmp_path / "x.mp4")
    with pytest.raises(Flaw, match="empty"):
        Pictures(tmp_path).check(tmp_path / "y.mp4")


def test_unpacking_writes_once_by_content(tmp_path):
    data = picture(tmp_path / "a.png").read_bytes()
    found = Pictures(tmp_path / "set", scratch=tmp_path / "scratch")
    path = found.unpack(data)
    written = path.stat().st_mtime_ns
    assert found.unpack(data) == path
    assert path.stat().st_mtime_ns == written
    assert path.read_bytes() == data
    assert [file.name for file in (tmp_path / "scratch").iterdir()] == [path.name]
    assert found.size(path) == (64, 48)
    with pytest.raises(Flaw):
        found.unpack(b"")
    path.write_bytes(b"")  # a disk that was full, a machine that lost power
    assert found.unpack(data).read_bytes() == data
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be unpacked") as caught:
        Pictures(tmp_path, scratch=tmp_path / "file" / "x").unpack(data)
    assert "--scratch" in str(caught.value.hint)
