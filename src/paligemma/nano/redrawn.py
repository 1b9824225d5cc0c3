"""A scene drawn once more: the same things at the same places, everything else anew. What a search by picture should find again."""

from __future__ import annotations

import numpy as np

from .names import things
from .sprites import SIZE, warp
from .world import Placed, Scene, background, blend, finish

TRIES = 30
"""Views of a thing that are tried until one has room."""
NUDGE = 4
"""Pixels that a thing may move, in a picture of SIZE: less than lies between two centres."""


def redraw(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another background, another view of every thing, its centre moved a little; None where they find no room.

    Things stay in their order from left to right, so that whatever can be said about the scene stays true.
    """
    side, zoom = scene.side, scene.side / SIZE
    pixels = background(rng, side)
    owner = np.full((side, side), -1, np.int8)
    placed: list[Placed] = []
    for number, spot in enumerate(scene.objects):
        new = _place(spot, rng, owner, zoom)
        if new is None or (placed and new.centre[0] <= placed[-1].centre[0]):
            return None
        owner[new.y0 : new.y1, new.x0 : new.x1][new.sprite.mask] = number
        placed.append(new)
    for spot in placed:
        blend(pixels, spot.sprite.rgb, spot.sprite.alpha, spot.x0, spot.y0)
    return Scene(finish(rng, pixels), tuple(placed), (), owner)


def _place(spot: Placed, rng: np.random.Generator, owner: np.ndarray, zoom: float) -> Placed | None:
    side = len(owner)
    for _ in range(TRIES):
        sprite = warp(things()[spot.thing], rng, zoom)
        height, width = sprite.alpha.shape
        x, y = (centre + rng.uniform(-NUDGE, NUDGE) * zoom for centre in spot.centre)
        x0 = int(np.clip(round(x - width / 2), 0, side - width))
        y0 = int(np.clip(round(y - height / 2), 0, side - height))
        if not (owner[y0 : y0 + height, x0 : x0 + width][sprite.alpha > 0.05] >= 0).any():
            return Placed(spot.thing, x0, y0, x0 + width, y0 + height, sprite, None, side)
    return None
