"""Tiles cover a picture and overlap; what is found in them is found once, whether one, two or four of them saw it, whole or cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from paligemma.errors import InputError
from paligemma.jobs.asked import all_asked
from paligemma.jobs.items import items
from paligemma.jobs.tiles import MOST, OVERLAP, Tile, _misfit, merge_boxes, merge_readings, tiles
from paligemma.jobs.work import Order, answer, open_item
from paligemma.predictor import Predictor
from paligemma.results import Box, Detections, Reading

from .. import tiny


@pytest.mark.parametrize("size", [(448, 448), (500, 300), (1000, 100), (4000, 3000), (225, 2000), (337, 337)])
@pytest.mark.parametrize("side", [112, 224])
def test_tiles_cover_the_picture_and_overlap(size, side):
    found = tiles(*size, side)
    if max(size) <= 1.5 * side:
        assert found == []
        return
    assert 2 <= len(found) <= MOST
    covered = np.zeros(size[::-1], int)
    for tile in found:
        assert 0 <= tile.x0 < tile.x1 <= size[0]
        assert 0 <= tile.y0 < tile.y1 <= size[1]
        covered[tile.y0 : tile.y1, tile.x0 : tile.x1] += 1
    assert covered.min() >= 1
    assert len({(tile.x1 - tile.x0, tile.y1 - tile.y0) for tile in found}) == 1
    for starts, width in (
        (sorted({tile.x0 for tile in found}), found[0].x1 - found[0].x0),
        (sorted({tile.y0 for tile in found}), found[0].y1 - found[0].y0),
    ):
        assert all(a + width - b >= OVERLAP * width - 1 for a, b in itertools.pairwise(starts))


WHOLE = (300, 200)
GRID = [Tile(0, 0, 100, 100), Tile(75, 0, 175, 100), Tile(75, 75, 175, 175), Tile(0, 75, 100, 175)]


def looked(things: list[Box], *, whole: bool = False) -> Detections:
    """What a perfect eye finds of `things` in each tile: what of a thing is in it, if that is a tenth of it."""
    parts = []
    for tile in GRID:
        found = []
        for thing in things:
            box = Box(
                thing.label,
                max(thing.x0, tile.x0) - tile.x0,
                max(thing.y0, tile.y0) - tile.y0,
                min(thing.x1, tile.x1) - tile.x0,
                min(thing.y1, tile.y1) - tile.y0,
                thing.score,
            )
            if box.width > 0 and box.height > 0 and box.area > 0.1 * thing.area:
                found.append(box)
        parts.append((tile, Detections(tuple(found), 100, 100, "x" if found else "", invalid=1)))
    return merge_boxes(Detections(tuple(things) if whole else (), *WHOLE, "w", "detect cat"), parts)


@pytest.mark.parametrize(
    "thing",
    [
        Box("cat", 10, 10, 30, 30, 0.9),  # in one tile
        Box("cat", 80, 20, 95, 40, 0.9),  # whole in two
        Box("cat", 80, 80, 95, 95, 0.9),  # whole in four
        Box("cat", 60, 20, 90, 40, 0.9),  # whole in one, cut in another
        Box("cat", 70, 70, 99, 99, 0.9),
        Box("cat", 40, 20, 140, 60, 0.9),  # cut in two: joined
        Box("cat", 10, 40, 60, 130, 0.9),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_thing_is_found_once_and_whole(thing, whole):
    assert looked([thing], whole=whole).boxes == (thing,)


def test_a_piece_that_was_surer_does_not_take_the_place_of_the_thing():
    whole = Detections((Box("cat", 40, 20, 140, 60, 0.3),), *WHOLE)
    parts = [(GRID[0], Detections((Box("cat", 40, 20, 100, 60, 0.99),), 100, 100))]
    assert merge_boxes(whole, parts).boxes == whole.boxes


def test_neighbours_and_other_labels_stay():
    things = [
        Box("cat", 10, 10, 30, 30, 0.9),
        Box("cat", 32, 10, 52, 30, 0.8),
        Box("dog", 12, 10, 31, 30, 0.7),
        Box("cat", 120, 120, 140, 150, 0.6),
    ]
    assert looked(things).boxes == tuple(things)


def test_the_surest_stay_where_only_so_many_are_wanted():
    whole = looked([Box("cat", 10.0 * place, 0, 10.0 * place + 8, 8, 0.1 + place / 10) for place in range(6)], whole=True)
    assert [box.score for box in merge_boxes(whole, [], 2)] == pytest.approx([0.6, 0.5])
    assert len(merge_boxes(whole, [])) == 6


def test_one_that_both_saw_is_that_of_the_surer():
    whole = Detections((Box("cat", 10, 10, 32, 31, 0.4),), *WHOLE, "a", "p", "eos", "l", 2)
    merged = merge_boxes(whole, [(GRID[0], Detections((Box("cat", 10, 10, 30, 30, 0.9),), 100, 100, "b", "p", "length", "m", 3))])
    assert merged.boxes == (Box("cat", 10, 10, 30, 30, 0.9),)
    assert (merged.width, merged.text, merged.stop, merged.leftover, merged.invalid) == (300, "a ; b", "length", "l m", 5)


def read(*texts: str, whole: str = "?") -> Reading:
    parts = [(tile, Reading(text, 0.5 + 0.1 * place, "ocr")) for place, (tile, text) in enumerate(zip(GRID, texts, strict=True))]
    return merge_readings(Reading(whole, 0.1, "ocr"), parts)


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (("TURKEY\nP4U", "TURKEY", "", ""), "TURKEY\nP4U"),  # seen twice
        (("TURK", "TURKEY", "", ""), "TURKEY"),  # cut
        (("TURKEY", "RKEY\nARTS", "", ""), "TURKEY\nARTS"),
        (("TURKI", "TURKEY", "", ""), "TURKEY"),  # the cut letter was guessed
        (("ONE", "TWO", "THREE", "FOUR"), "ONE\nTWO\nTHREE\nFOUR"),
        (("NO\nNO", "", "", ""), "NO\nNO"),  # twice in one tile is twice
        (("", "", "", ""), "?"),
    ],
)
def test_lines_are_read_once(texts, text):
    assert read(*texts).text == text


def test_a_reading_is_as_sure_as_its_least_sure_tile():
    assert read("", "ONE", "", "TWO").score == pytest.approx(0.6)
    assert read("", "", "", "").score == 0.1


def test_what_a_tile_was_not_sure_of_is_left_out():
    parts = [(GRID[0], Reading("ONE", 0.9)), (GRID[1], Reading("192", 0.3)), (GRID[2], Reading("TWO"))]
    assert merge_readings(Reading("?", 0.1), parts).text == "ONE\nTWO"
    assert merge_readings(Reading("?", 0.1), parts[1:2]) == Reading("?", 0.1)


def test_tiles_that_do_not_meet_may_say_the_same():
    far = [Tile(0, 0, 100, 100), Tile(200, 0, 300, 100)]
    merged = merge_readings(Reading(""), [(tile, Reading("EXIT")) for tile in far])
    assert merged.text == "EXIT\nEXIT"


@pytest.mark.parametrize(
    ("piece", "line", "misfit"), [("abc", "xxabcxx", 0), ("abd", "xxabcxx", 1), ("", "abc", 0), ("abc", "", 3), ("ac", "abc", 1)]
)
def test_a_misfit_is_the_distance_to_the_best_part(piece, line, misfit):
    assert _misfit(piece, line) == misfit
    parts = [line[a:b] for a in range(len(line) + 1) for b in range(a, len(line) + 1)]
    from paligemma.evaluation.answers import edit_distance

    assert _misfit(piece, line) == min(edit_distance(piece, part) for part in parts)


def test_a_job_looks_closer_at_large_pictures_only(tmp_path, monkeypatch):
    predictor = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    side = predictor.config.vision.image_size
    Image.new("RGB", (3 * side, 2 * side), "red").save(tmp_path / "large.png")
    Image.new("RGB", (side, side), "red").save(tmp_path / "small.png")
    order = Order(all_asked(["caption", "detect:cat", "ocr"]), {"max_tokens": 6}, {"max_objects": 1}, tiles=True)
    opened = [open_item(item, predictor.config, order) for item in items(tmp_path)]
    wanted = tiles(3 * side, 2 * side, side)
    assert [len(one.tiles) for one in opened] == [len(wanted), 0]
    asked: list[tuple[str, int]] = []
    for verb in ("caption", "detect", "ocr"):
        real = getattr(predictor, verb)

        def counting(pictures, *rest, verb=verb, real=real, **how):
            asked.append((verb, len(pictures)))
            return real(pictures, *rest, **how)

        monkeypatch.setattr(predictor, verb, counting)
    large, small = answer(predictor, order, opened)
    assert asked == [("caption", 2), ("detect", 2), ("ocr", 2), ("detect", len(wanted)), ("ocr", len(wanted))]
    assert [row["result"]["width"] for done in (large, small) for row in done.rows if "width" in row["result"]] == [3 * side, side]


def test_a_tile_that_fails_is_no_empty_tile(tmp_path, monkeypatch):
    predictor = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    side = predictor.config.vision.image_size
    Image.new("RGB", (3 * side, 2 * side), "red").save(tmp_path / "large.png")
    real = predictor.detect
    asked: list[int] = []

    def failing(pictures, *rest, **how):
        asked.append(len(pictures))
        if len(asked) > 1 and (len(pictures) > 1 or len(asked) == 4):
            raise InputError("no room for it", code="too_long")
        return real(pictures, *rest, **how)

    monkeypatch.setattr(predictor, "detect", failing)
    order = Order(all_asked(["detect:cat"]), {"max_tokens": 6}, tiles=True)
    (done,) = answer(predictor, order, [open_item(item, predictor.config, order) for item in items(tmp_path)])
    assert (done.rows, done.errors[0]["error"]["code"]) == ((), "too_long")
