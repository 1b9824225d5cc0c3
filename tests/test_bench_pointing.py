"""The pointing game counts what it says it counts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("font_roboto")
import paligemma
from bench import pointing
from paligemma.nano.world import Placed


@pytest.fixture(scope="module")
def predictor():
    return paligemma.load("nano-112", device="cpu", dtype="float32")


def test_a_hit_is_the_middle_of_the_hottest_patch_in_the_box():
    spot = Placed(0, 30, 60, 50, 80, None, None, 112)  # pyright: ignore[reportArgumentType]
    heat = np.zeros((8, 8))
    heat[4, 2] = 1  # x 28 to 42, y 56 to 70
    assert pointing.hit(heat, spot)
    heat[4, 3] = 2  # its middle, 49, is in too
    assert pointing.hit(heat, spot)
    heat[0, 0] = 3
    assert not pointing.hit(heat, spot)


def test_samples_are_right_answers_about_one_thing(predictor):
    for task in pointing.TASKS:
        found = list(pointing.samples(predictor, task, 3, 5))
        assert len(found) == 3
        for one in found:
            text = predictor.tokenizer.decode(one.ids[one.start : one.stop]).strip()
            noun = pointing.label(one.spot) if task != "colour" else pointing.things()[one.spot.thing].colour
            assert text.endswith(noun)


def test_what_the_library_shows_points_better_than_baselines(predictor):
    found = pointing.measure(predictor, 5, 11)
    assert all(score.value >= 0.8 for score in found["attention, smoothed"].values())
    assert all(found["random point"][task].value < 0.3 for task in pointing.TASKS)
    assert pointing.table(found).count("\n") == len(found) + 1
