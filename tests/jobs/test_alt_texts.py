"""Alt texts go where they belong; what is there, a person's words above all, stays."""

from __future__ import annotations

import pytest

from paligemma.errors import UsageError
from paligemma.jobs.alt_texts import AltText, Rules, SideFiles, alt_texts, beside, picture_files
from paligemma.jobs.items import items

from .making import album, lines

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
    assert place.add([OWL, EULE, FISH, AltText("gone.png", "en", "", 0.0, True, False)]) == [EULE, FISH]
    assert {path.name: path.read_text() for path in base.glob("*.txt")} == {
        "0.png.en.txt": "a person's words\n",
        "0.png.de.txt": "Eule, „grün“\n",
        "1.png.en.txt": "a fish\n",
    }
    assert not place.lacks(first, ["en", "de"])
    assert place.lacks(second, ["de"])
    anew = SideFiles(pictures, overwrite=True)
    assert anew.lacks(first, ["en"])
    assert anew.add([OWL]) == [OWL]
    assert beside(base / "0.png", "en").read_text() == "an owl\n"


def test_no_side_files_beside_tables_nor_videos(tmp_path):
    folder = album(tmp_path / "a", 1)
    (folder / "film.mp4").write_bytes(b"video")
    _, pictures = picture_files(folder)
    assert list(pictures) == ["0.png"]
    assert [SideFiles(pictures).lacks(item, ["en"]) for item in items(folder)] == [True, False]
    with pytest.raises(UsageError, match="no text can lie"):
        picture_files(lines(tmp_path / "t.jsonl", {"image": "a/0.png"}))
