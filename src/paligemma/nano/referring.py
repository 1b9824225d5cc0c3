"""Sentences that mean one thing of a scene by its place, its size or its neighbour: what the referring transfer learns. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .lessons import CLEAR, RELATIONS, label
from .world import SIZE, Scene

EXTREMES = {"leftmost": (0, 1), "rightmost": (0, -1), "highest": (1, 1), "lowest": (1, -1)}
"""Word -> (axis, sign): the thing whose sign * centre is least along the axis."""
SIZES = {"largest": -1, "smallest": 1}
"""Word -> sign: the thing whose sign * area is least."""
CLEARLY_LARGER = 1.3
"""An area is compared with one that is at least so many times as large."""
LEAST_THINGS = 3
"""With two, the thing that is not named would always be the one that is meant."""


@dataclass(frozen=True)
class Reference:
    """`kind` groups sentences for scoring: "place", "size" or "neighbour"; `target`: index into the scene's objects."""

    kind: str
    sentence: str
    target: int


def references(scene: Scene) -> list[Reference]:
    """Every sentence that clearly means one thing of the scene and none of the others; none in a scene of too few things."""
    return [*_places(scene), *_sizes(scene), *_neighbours(scene)] if len(scene.objects) >= LEAST_THINGS else []


def draw_reference(scene: Scene, rng: np.random.Generator) -> Reference | None:
    """One of them: first a kind, so that kinds are equally frequent, then a sentence. None where there is none."""
    found = references(scene)
    kinds = sorted({one.kind for one in found})
    if not kinds:
        return None
    kind = kinds[int(rng.integers(len(kinds)))]
    fitting = [one for one in found if one.kind == kind]
    return fitting[int(rng.integers(len(fitting)))]


def _places(scene: Scene) -> Iterator[Reference]:
    for word, (axis, sign) in EXTREMES.items():
        along = [sign * spot.centre[axis] for spot in scene.objects]
        first, second = sorted(along)[:2]
        if second - first >= _clear(scene):
            yield Reference("place", f"the {word} thing", along.index(first))


def _sizes(scene: Scene) -> Iterator[Reference]:
    areas = [int(scene.mask(index).sum()) for index in range(len(scene.objects))]
    for word, sign in SIZES.items():
        first, second = sorted(areas, key=lambda area: sign * area)[:2]
        if max(first, second) >= CLEARLY_LARGER * min(first, second):
            yield Reference("size", f"the {word} thing", areas.index(first))


def _neighbours(scene: Scene) -> Iterator[Reference]:
    labels = [label(spot) for spot in scene.objects]
    for anchor, spot in enumerate(scene.objects):
        if labels.count(labels[anchor]) > 1:
            continue
        for phrase, (axis, sign) in RELATIONS.items():
            ahead = {index: sign * (spot.centre[axis] - other.centre[axis]) for index, other in enumerate(scene.objects) if index != anchor}
            meant = [index for index, distance in ahead.items() if distance >= _clear(scene)]
            if len(meant) == 1 and all(distance <= -_clear(scene) for index, distance in ahead.items() if index != meant[0]):
                yield Reference("neighbour", f"the thing {phrase} the {labels[anchor]}", meant[0])


def _clear(scene: Scene) -> float:
    return CLEAR * scene.side / SIZE
