"""Alt texts go where they belong; what is there, a person's words above all, stays."""

from __future__ import annotations

import errno
import os

import pytest

from paligemma.errors import ResourceError, UsageError
from paligemma.jobs import alt_texts as alt_texts_module
from paligemma.jobs.alt_texts import KEPT, AltText, Rules, SideFiles, alt_texts, beside, picture_files
from paligemma.jobs.items import items
from paligemma.training.disk import replace_file

from .making import album, lines, png

OWL = AltText("0.png", "en", "an owl", 0.9, False, False)
EULE = AltText("0.png", "de", "Eule, „grün“", 0.4, True, False)
FISH = AltText("1.png", "en", "a fish", 0.8, False, True)


def row(text: str = "an owl", score: float = 0.9, stop: str = "eos", task: str = "caption:de:normal") -> dict:
    return {"id": "0.png", "task": task, "kept": {}, "result": {"text": text, "score": score, "stop": stop}}


@pytest.mark.parametrize(
    ("found", "doubtful"),
    [
        (row(), False),
        (row(score=0.49), True),
        (row(stop="length"), True),
        (row(""), True),
        (row("an owl <loc0012><seg001>"), True),
        (row("left"), True),
        (row("猫头鹰"), False),
    ],
)
def test_doubtful_ones(found: dict, doubtful: bool):
    (one,) = alt_texts([found], Rules(most=125, doubt=0.5))
    assert (one.doubtful, one.lang, one.cut) == (doubtful, "de", False)


@pytest.mark.parametrize(
    ("answer", "most", "text"),
    [
        ("<loc0012><loc0400><loc0100><loc0500> an owl", 125, "an owl"),
        ("an <loc0012>owl<seg001>", 125, "an owl"),
        ("<loc0012><loc0400>", 125, ""),
        ("an owl and a fish <loc0012>", 20, "an owl and a fish"),
        ("an owl <loc0012><loc0400>", 12, "an owl"),
    ],
)
def test_places_are_taken_out_before_anything_is_cut(answer: str, most: int, text: str):
    (one,) = alt_texts([row(answer)], Rules(most=most))
    assert (one.text, one.cut, one.doubtful) == (text, False, True)


def test_long_ones_are_cut_and_say_so():
    (one,) = alt_texts([row("an owl and a fish")], Rules(most=10))
    assert (one.text, one.cut) == ("an owl…", True)


def test_side_files_are_named_after_the_whole_picture_and_stay_when_edited(tmp_path):
    base, pictures = picture_files(album(tmp_path / "a", 2))
    assert pictures == {"0.png": base / "0.png", "1.png": base / "1.png"}
    beside(base / "0.png", "en").write_text("a person's words\n")
    place = SideFiles(pictures)
    first, second = items(base)
    assert not place.lacks(first, ["en"])
    assert place.lacks(first, ["en", "de"])
    assert place.add([OWL, EULE, FISH, AltText("gone.png", "en", "", 0.0, True, False)]).taken == [EULE, FISH]
    assert {path.name: path.read_text() for path in base.glob("*.txt")} == {
        "0.png.en.txt": "a person's words\n",
        "0.png.de.txt": "Eule, „grün“\n",
        "1.png.en.txt": "a fish\n",
    }
    assert not place.lacks(first, ["en", "de"])
    assert place.lacks(second, ["de"])
    anew = SideFiles(pictures, overwrite=True)
    assert anew.lacks(first, ["en"])
    assert anew.add([OWL]).taken == [OWL]
    assert beside(base / "0.png", "en").read_text() == "an owl\n"


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    long, too_long = "a" * 244 + ".png", "b" * 248 + ".png"  # with .en.txt 255 bytes and more
    pictures = {name: tmp_path / name for name in (long, too_long, "0.png")}
    for path in pictures.values():
        path.write_bytes(png())
    place = SideFiles(pictures)
    assert all(place.lacks(item, ["en"]) for item in items(tmp_path))
    added = place.add([AltText(name, "en", "an owl", 0.9, False, False) for name in pictures])
    assert [one.id for one in added.taken] == [long, "0.png"]
    (refused,) = added.refused
    assert (refused["id"], "shorter name" in refused["error"]["hint"]) == (too_long, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*pictures, f"{long}.en.txt", "0.png.en.txt"])


@pytest.mark.parametrize(("number", "stops"), [(errno.EACCES, False), (errno.EROFS, False), (errno.ENOSPC, True), (errno.EIO, True)])
def test_one_place_that_takes_nothing_does_not_stop_others(tmp_path, monkeypatch, number, stops):
    def refuse(disk, path, data):
        if path.name.startswith("0"):
            raise OSError(number, os.strerror(number))
        replace_file(disk, path, data)

    monkeypatch.setattr(alt_texts_module, "replace_file", refuse)
    _, pictures = picture_files(album(tmp_path / "a", 2))
    place = SideFiles(pictures)
    if stops:
        with pytest.raises(ResourceError) as raised:
            place.add([OWL, FISH])
        assert raised.value.hint == KEPT
    else:
        added = place.add([OWL, FISH])
        assert added.taken == [FISH]
        assert [(row["id"], row["error"]["hint"]) for row in added.refused] == [("0.png", KEPT)]


def test_no_side_files_beside_tables_nor_videos(tmp_path):
    folder = album(tmp_path / "a", 1)
    (folder / "film.mp4").write_bytes(b"video")
    _, pictures = picture_files(folder)
    assert list(pictures) == ["0.png"]
    assert [SideFiles(pictures).lacks(item, ["en"]) for item in items(folder)] == [True, False]
    with pytest.raises(UsageError, match="no text can lie"):
        picture_files(lines(tmp_path / "t.jsonl", {"image": "a/0.png"}))
