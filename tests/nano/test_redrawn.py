"""Drawn once more: the same things in the same order, another picture."""

from __future__ import annotations

import numpy as np
import pytest

from paligemma.nano.pairs import content
from paligemma.nano.redrawn import NUDGE, redraw


@pytest.fixture(scope="module")
def pairs(test_scenes):
    scenes = [scene for scene in test_scenes if scene.objects]
    return [(scene, again) for i, scene in enumerate(scenes) if (again := redraw(scene, np.random.default_rng(i))) is not None]


def test_most_can_be_drawn_once_more(pairs, test_scenes):
    assert len(pairs) > 0.7 * len([scene for scene in test_scenes if scene.objects])


def test_the_same_is_said_about_both(pairs):
    for scene, again in pairs:
        assert content(again) == content(scene)
        centres = [spot.centre[0] for spot in again.objects]
        assert centres == sorted(centres)


def test_things_stay_where_they_are_unless_the_edge_is_in_the_way(pairs):
    moved = [
        max(abs(a - b) for a, b in zip(old.centre, new.centre, strict=True))
        for scene, again in pairs
        for old, new in zip(scene.objects, again.objects, strict=True)
    ]
    assert np.median(moved) < NUDGE
    assert all(0 <= spot.x0 < spot.x1 <= 112 and 0 <= spot.y0 < spot.y1 <= 112 for _, again in pairs for spot in again.objects)


def test_nothing_overlaps(pairs):
    for _, again in pairs:
        for number, spot in enumerate(again.objects):
            assert again.mask(number).sum() == spot.sprite.mask.sum()


def test_pixels_differ(pairs):
    assert min(np.abs(scene.pixels.astype(int) - again.pixels).mean() for scene, again in pairs) > 3


def test_it_is_a_function_of_the_seed(pairs):
    scene = pairs[0][0]
    one, same, other = (redraw(scene, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert one is not None
    assert same is not None
    assert np.array_equal(one.pixels, same.pixels)
    assert other is None or not np.array_equal(one.pixels, other.pixels)
