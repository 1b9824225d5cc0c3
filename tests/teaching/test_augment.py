"""A changed picture and its changed truth still belong together: what lies in a box is the same colour as before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from paligemma.data.augment import Augment, can_mirror, crop, mirror
from paligemma.data.outlines import Polygons
from paligemma.data.records import Record, Thing
from paligemma.errors import UsageError

RED, BLUE = (200, 30, 30), (30, 30, 200)
RED_BOX, BLUE_BOX = (10.0, 20.0, 40.0, 50.0), (70.0, 5.0, 90.0, 60.0)


def ring(box):
    x0, y0, x1, y1 = box
    return Polygons((((x0, y0), (x1, y0), (x1, y1), (x0, y1)),))


@pytest.fixture
def picture() -> Image.Image:
    drawn = Image.new("RGB", (100, 64), (230, 230, 230))
    for box, colour in ((RED_BOX, RED), (BLUE_BOX, BLUE)):
        ImageDraw.Draw(drawn).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=colour)
    return drawn


def record(task="detect", **more) -> Record:
    things = (Thing("red", RED_BOX, ring(RED_BOX)), Thing("blue", BLUE_BOX, ring(BLUE_BOX)))
    return dataclasses.replace(Record("a", task, (Path("a.png"),), "line 1", things=things, ignored=things[:1]), **more)


def colours_belong(picture: Image.Image, found: Record) -> None:
    pixels = np.asarray(picture).astype(int)
    for thing in (*found.things, *found.ignored):
        x0, y0, x1, y1 = (round(v) for v in thing.box)
        expected = np.array({"red": RED, "blue": BLUE}[thing.label])
        assert np.abs(pixels[y0:y1, x0:x1] - expected).max() <= 1, thing
        assert thing.outline is not None
        mask = thing.outline.mask(picture.width, picture.height)
        assert np.abs(pixels[mask] - expected).max() <= 1
        assert abs(int(mask.sum()) - (x1 - x0) * (y1 - y0)) <= 2 * (x1 - x0 + y1 - y0)


def test_a_mirror_turns_picture_and_truth(picture):
    rng = np.random.default_rng(0)
    turned, found = Augment(flip=1.0)(picture, record(), rng)
    assert turned.getpixel((99 - 12, 30)) == RED
    assert found.things[0].box == (60, 20, 90, 50)
    colours_belong(turned, found)
    assert mirror(mirror(record(), 100), 100).things[1].box == BLUE_BOX


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_keeps_what_is_seen(picture, seed):
    cut, found = Augment(crop=0.6)(picture, record(), np.random.default_rng(seed))
    assert cut.size != picture.size
    colours_belong(cut, found)


def test_a_thing_that_is_cut_away_is_gone(picture):
    cut, found = crop(picture, record(), (50, 0, 100, 64))
    assert [thing.label for thing in found.things] == ["blue"]
    assert found.ignored == ()
    colours_belong(cut, found)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("the cat on the left", "the cat on the right"),
        ("Leftmost and RIGHT", "Rightmost and LEFT"),
        ("the right-hand door", "the left-hand door"),
        ("bright leftovers", "bright leftovers"),
    ],
)
def test_words_follow_the_mirror(text, other):
    found = mirror(record("refer", asked=(text,), prompt=text, answers=(text,)), 100)
    assert found.asked == (other,)
    assert (found.prompt, found.answers) == (other, (other,))


@pytest.mark.parametrize(
    "held",
    [
        {"task": "ocr"},
        {"answers": ("die Katze links",)},
        {"prompt": "turn clockwise"},
        {"answers": ("左边的猫",)},
        {"prompt": "caption <loc0001>"},
    ],
)
def test_what_cannot_follow_is_not_mirrored(picture, held):
    assert not can_mirror(record(**held))
    same, found = Augment(flip=1.0)(picture, record(**held), np.random.default_rng(0))
    assert same is picture
    assert found == record(**held)


def test_a_whole_picture_stays_whole_where_the_answer_is_words(picture):
    text = record("caption", answers=("two squares",))
    assert Augment(crop=0.9)(picture, text, np.random.default_rng(0))[0] is picture


def test_colour_and_jpeg_change_pixels_only(picture):
    changed, found = Augment(colour=0.4, jpeg=1.0)(picture, record(), np.random.default_rng(1))
    assert found == record()
    assert changed.size == picture.size
    assert 3 < np.abs(np.asarray(changed).astype(int) - np.asarray(picture)).mean() < 100


def test_the_same_generator_gives_the_same_change_and_switches_do_not_disturb_each_other(picture):
    everything = Augment(crop=0.3, flip=0.5, colour=0.2, jpeg=0.5)
    first, again = (everything(picture, record(), np.random.default_rng(7)) for _ in range(2))
    assert first[0].tobytes() == again[0].tobytes()
    cut = Augment(crop=0.3)(picture, record(), np.random.default_rng(7))
    assert cut[0].size == first[0].size


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"crop": -0.1}, {"jpeg": float("nan")}])
def test_shares_are_shares(wrong):
    with pytest.raises(UsageError):
        Augment(**wrong)
    assert not Augment()
