"""What each kind of argument stands for, in which order, and that one bad input spoils no other."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma import download, sources
from paligemma.errors import InputError, UsageError
from paligemma.image import UNREADABLE, Clip
from paligemma.sources import below, expand, natural_order, reaches


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    for name in (
        "img10.png",
        "img2.png",
        "IMG1.JPG",
        "sub/a.webp",
        "sub/.hidden.png",
        ".git/b.png",
        "notes.txt",
        "[1].png",
        "sub2/deep/c.bmp",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(path, {".txt": "PNG", ".JPG": "JPEG"}.get(path.suffix))
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "v.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALL = ["[1].png", "broken.png", "IMG1.JPG", "img2.png", "img10.png", "v.mp4", "sub/a.webp", "sub2/deep/c.bmp"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["img2.png"], ["img2.png"]),
        (["img2.png", "IMG1.JPG", "img2.png"], ["img2.png", "IMG1.JPG", "img2.png"]),
        (["notes.txt"], ["notes.txt"]),
        (["none.png", "img2.png"], ["none.png", "img2.png"]),
        (["."], ALL),
        (["sub"], ["sub/a.webp"]),
        (["sub/"], ["sub/a.webp"]),
        (["empty"], ["empty"]),
        (["*.png"], ["[1].png", "broken.png", "img2.png", "img10.png"]),
        (["img?.png"], ["img2.png"]),
        (["sub/*", "sub2/*/*.bmp"], ["sub/a.webp", "sub2/deep/c.bmp"]),
        (["sub*"], ["sub*"]),
        (["sub*/**/*.*"], ["sub2/deep/c.bmp", "sub/a.webp"]),
        (["sub/.h*"], ["sub/.hidden.png"]),
        (["**/c.bmp"], ["sub2/deep/c.bmp"]),
        (["[1].png"], ["[1].png"]),
        (["img[0-9].png"], ["img2.png"]),
        (["*.tiff"], ["*.tiff"]),
        (["-", "img2.png"], ["standard input", "img2.png"]),
        ([], []),
    ],
)
def test_names_and_order(folder: Path, arguments: list[str], names: list[str]):
    assert [source.name for source in expand(arguments)] == names


def test_the_tree_is_walked_without_following_links(folder: Path):
    found = expand([str(folder)])
    assert [source.path for source in found] == [folder / name for name in ALL]
    assert [source.kind for source in found].index("video") == ALL.index("v.mp4")


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when it is read"])
def test_a_folder_that_cannot_be_read_fails_by_name(tmp_path, shut, late: bool):
    for name in ("a.png", "shut.mp4/b.png", "z/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    shut(tmp_path / "shut.mp4", late=late)
    found = expand([str(tmp_path)])
    assert [source.path for source in found] == [tmp_path / "a.png", tmp_path / "z/c.png", tmp_path / "shut.mp4"]
    assert found[-1].kind == "image"
    with pytest.warns(UserWarning, match=r"shut.mp4: this folder cannot be read \(Permission denied\): left out"):
        assert list(below(tmp_path)) == [tmp_path / "a.png", tmp_path / "z/c.png"]
    shut(tmp_path, late=late)
    for source in (found[-1], *expand([str(tmp_path)])):
        with pytest.raises(InputError, match=r"this folder cannot be read \(Permission denied\)") as refused:
            source.open()
        assert (refused.value.code, str(source.path) in refused.value.message) == (UNREADABLE, True)


def test_bad_inputs_fail_one_by_one(folder: Path):
    told = {}
    good = []
    for source in expand([".", "none.png", "empty", "*.tiff"]):
        try:
            good.append(source.open())
        except InputError as error:
            told[source.name] = error.message
    assert len(good) == len(ALL) - 2
    assert told.keys() == {"broken.png", "v.mp4", "none.png", "empty", "*.tiff"}
    assert all(message.startswith(name) for name, message in told.items())
    assert "an empty file" in told["broken.png"]
    assert "no such file" in told["none.png"]
    assert "no pictures or videos in this folder" in told["empty"]
    assert "no file matches this pattern" in told["*.tiff"]


def test_opening_happens_late(folder: Path):
    (source,) = expand(["later.png"])
    Image.new("RGB", (7, 5)).save("later.png")
    assert source.open().size == (7, 5)  # type: ignore[union-attr]


def test_videos_become_clips(folder: Path, monkeypatch):
    asked = []

    def sample(path: Path, count: int) -> list[Image.Image]:
        asked.append((path, count))
        return [Image.new("RGB", (2, 2))] * count

    monkeypatch.setattr(sources, "sample_frames", sample)
    (source,) = expand(["v.mp4"], frames=3)
    clip = source.open()
    assert isinstance(clip, Clip)
    assert len(clip.frames) == 3
    assert asked == [(Path("v.mp4"), 3)]


def test_standard_input_is_read_once_and_late():
    buffer = io.BytesIO()
    Image.new("RGB", (6, 3), "blue").save(buffer, "PNG")
    stdin = io.BytesIO(buffer.getvalue())
    first, second = expand(["-", "-"], stdin=stdin)
    assert stdin.tell() == 0
    for source in (first, second):
        image = source.open()
        assert np.asarray(image).tolist() == np.asarray(Image.new("RGB", (6, 3), "blue")).tolist()
    with pytest.raises(InputError, match=r"standard input: .*an empty file"):
        expand(["-"], stdin=io.BytesIO())[0].open()


def test_standard_input_that_is_a_terminal():
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(InputError, match="this is a terminal") as caught:
        expand(["-"], stdin=Terminal())[0].open()
    assert caught.value.hint


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png", "http://example.com/a.png", "file:///etc/passwd", "HTTPS://x/y", "data:image/png;base64,AA"]
)
def test_addresses_need_leave(url: str, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda address: pytest.fail("fetched"))
    with pytest.raises(UsageError, match="web addresses") as caught:
        expand(["a.png", url])
    assert "--allow-urls" in (caught.value.hint or "")
    assert expand([url], allow_urls=True)[0].name == url


def test_an_allowed_address_is_fetched_when_opened(monkeypatch):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 3)).save(buffer, "PNG")
    monkeypatch.setattr(download, "fetch", {"https://x.example/a.png": buffer.getvalue(), "https://x.example/b": b"<html>"}.__getitem__)
    good, bad = expand(["https://x.example/a.png", "https://x.example/b"], allow_urls=True)
    assert good.open().size == (6, 3)  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"^https://x.example/b: .*a web page"):
        bad.open()


def test_names_are_fit_for_a_terminal(tmp_path: Path):
    path = tmp_path / "a\x1b[31m\n\u202e.png"
    Image.new("RGB", (4, 4)).save(path, "PNG")
    (source,) = expand([str(path)])
    assert source.name.isprintable()
    assert source.path == path
    assert source.open().size == (4, 4)  # type: ignore[union-attr]
    (folder,) = expand([str(tmp_path)])
    assert folder.name == source.name


def test_natural_order():
    names = ["a10", "a2", "A3", "a", "a2b1", "10", "9", "b", "", "a²"]
    assert sorted(names, key=natural_order) == ["", "9", "10", "a", "a2", "a2b1", "A3", "a10", "a²", "b"]


@pytest.mark.parametrize(
    ("argument", "place", "would"),
    [
        ("photos", "photos/drawn", True),
        ("photos", "drawn", False),
        ("photos/**/*.jpg", "photos/drawn", True),
        ("photos/*.jpg", "photos", True),
        ("photos/*.jpg", "photos/drawn", False),
        ("photos/*/*.jpg", "photos/drawn", True),
        ("photos/2*/*.jpg", "photos/drawn", False),
        ("photos/2*/*.jpg", "photos/2026", True),
        ("photos/*.jpg", "elsewhere", False),
        ("*.jpg", "drawn", False),
        ("photos/a.jpg", "photos", False),
        ("photos/a*/**/*.jpg", "photos/drawn", False),
        ("photos/a*/**/*.jpg", "photos/all", True),
        ("photos/**/*.jpg", "photos/a/b/c", True),
    ],
)
def test_what_a_source_would_pick_up(tmp_path: Path, monkeypatch, argument: str, place: str, would: bool):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert reaches(argument, Path(place)) is would
    assert reaches(str(tmp_path / argument), Path(place)) is would


@pytest.mark.parametrize(
    ("argument", "would"), [("photos", True), ("photos/*.jpg", False), ("photos/*.png", True), ("photos/a*", True), ("photos/*.p?g", True)]
)
def test_of_a_file_whose_ending_is_known(tmp_path: Path, monkeypatch, argument: str, would: bool):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert reaches(argument, Path("photos"), ".png") is would
