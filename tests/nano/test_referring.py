"""Sentences that mean one thing: checked against the masks by another route, all kinds come up, what is unclear is not asked."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from paligemma.nano.lessons import label
from paligemma.nano.referring import CLEARLY_LARGER, LEAST_THINGS, draw_reference, references
from paligemma.nano.world import Scene, Split, World


@pytest.fixture(scope="module")
def crowded() -> list[Scene]:
    world = World(Split.TEST, seed=4, text_share=0.0)
    scenes = [world.scene(index) for index in range(60)]
    return [scene for scene in scenes if len(scene.objects) >= LEAST_THINGS]


def boxes(scene: Scene) -> np.ndarray:
    """(things, 4) left, top, right, bottom, read off the masks."""
    found = []
    for index in range(len(scene.objects)):
        rows, columns = np.nonzero(scene.owner == index)
        found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return np.array(found, float)


def meant(scene: Scene, sentence: str) -> list[int]:
    """Indices of everything that a sentence could mean."""
    corners = boxes(scene)
    x, y = (corners[:, 0] + corners[:, 2]) / 2, (corners[:, 1] + corners[:, 3]) / 2
    areas = np.array([(scene.owner == index).sum() for index in range(len(scene.objects))])
    best = {
        "leftmost": x, "rightmost": -x, "highest": y, "lowest": -y, "largest": -areas, "smallest": areas,
    }  # fmt: skip
    if match := re.fullmatch(r"the (\w+) thing", sentence):
        values = best[match[1]]
        return np.flatnonzero(values == values.min()).tolist()
    match = re.fullmatch(r"the thing (left of|right of|above|below) the (.+)", sentence)
    assert match, sentence
    (anchor,) = [index for index, spot in enumerate(scene.objects) if label(spot) == match[2]]
    holds = {"left of": x < x[anchor], "right of": x > x[anchor], "above": y < y[anchor], "below": y > y[anchor]}[match[1]]
    return np.flatnonzero(holds).tolist()


def test_a_sentence_means_its_target_and_nothing_else(crowded):
    asked = [(scene, one) for scene in crowded for one in references(scene)]
    assert len(asked) > 100
    for scene, one in asked:
        assert meant(scene, one.sentence) == [one.target], one.sentence


def test_sizes_are_compared_where_they_clearly_differ(crowded):
    for scene in crowded:
        areas = sorted(int((scene.owner == index).sum()) for index in range(len(scene.objects)))
        said = {one.sentence for one in references(scene)}
        assert ("the largest thing" in said) == (areas[-1] >= CLEARLY_LARGER * areas[-2])
        assert ("the smallest thing" in said) == (areas[1] >= CLEARLY_LARGER * areas[0])


def test_kinds_are_drawn_equally_often_and_again_the_same(crowded):
    rich = [scene for scene in crowded if len({one.kind for one in references(scene)}) == 3]
    rng = np.random.default_rng(0)
    drawn = Counter(one.kind for scene in rich for _ in range(30) if (one := draw_reference(scene, rng)))
    assert set(drawn) == {"place", "size", "neighbour"}
    assert max(drawn.values()) < 1.4 * min(drawn.values())
    again = [draw_reference(rich[0], np.random.default_rng(seed)) for seed in (5, 5)]
    assert again[0] == again[1]


def test_too_few_things_are_not_asked_about(test_scenes):
    few = [scene for scene in test_scenes if len(scene.objects) < LEAST_THINGS]
    assert few
    assert all(not references(scene) and draw_reference(scene, np.random.default_rng(0)) is None for scene in few)
