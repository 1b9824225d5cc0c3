"""Short films of the small world: a few frames in which one thing moves, appears or disappears, and the sentence that says so. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .names import things, with_article
from .sprites import Sprite, warp
from .world import SIZE, Split, background, blend, finish

FRAMES = 4
EVENTS = {
    "left": "moves to the left", "right": "moves to the right", "up": "moves up", "down": "moves down",
    "appears": "appears", "disappears": "disappears", "nothing": "",
}  # fmt: skip
"""Kind of event -> what is said of the thing it happens to."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
NOTHING = "nothing happens"
NOTHING_SHARE = 0.1
"""Of the films, how many show no event."""
LONGEST_SIDE = 44
"""Of a thing, so that it has room to move."""
SHORTEST_WAY = 30
"""Pixels that a thing moves, at least."""
GAP = 2
"""Pixels between the boxes of two things in a frame."""

Spot = tuple[float, float] | None
"""Upper left corner of a thing in a frame; None where it is not there."""


@dataclass(frozen=True)
class Film:
    """`frames` (SIZE, SIZE, 3) uint8 each; `caption`: what happens; `event`: a key of `EVENTS`."""

    frames: tuple[np.ndarray, ...]
    caption: str
    event: str


def film(split: Split, seed: int, index: int) -> Film:
    """Film number `index` of a split and seed: two or three different things, to one of which something happens, or nothing."""
    rng = np.random.default_rng([seed, split.value, 0xF11, index])
    event = "nothing" if rng.random() < NOTHING_SHARE else [name for name in EVENTS if name != "nothing"][int(rng.integers(6))]
    kinds = [int(kind) for kind in rng.choice(len(things()), size=int(rng.integers(2, 4)), replace=False)]
    sprites = [_small(rng, kind) for kind in kinds]
    while _meet(sprites, ways := [_way(rng, sprite, event if place == 0 else "nothing") for place, sprite in enumerate(sprites)]):
        pass
    return Film(_draw(rng, sprites, ways), caption(things()[kinds[0]].label, event), event)


def caption(name: str, event: str) -> str:
    """("cat", "left") -> "a cat moves to the left"."""
    if event == "nothing":
        return NOTHING
    named = with_article(name)
    verb, *rest = EVENTS[event].split(" ")
    return " ".join([named, verb.removesuffix("s") if named == name else verb, *rest])  # scissors move


def _small(rng: np.random.Generator, kind: int) -> Sprite:
    while True:
        sprite = warp(things()[kind], rng)
        if max(sprite.alpha.shape) <= LONGEST_SIDE:
            return sprite


def _way(rng: np.random.Generator, sprite: Sprite, event: str) -> list[Spot]:
    """Where a thing is in each frame."""
    height, width = sprite.alpha.shape
    room = np.array([SIZE - width, SIZE - height], float)
    start = rng.uniform(0, room)
    when = int(rng.integers(1, FRAMES))
    if event in DIRECTIONS:
        direction = np.array(DIRECTIONS[event])
        axis = int(np.flatnonzero(direction)[0])
        length = rng.uniform(SHORTEST_WAY, room[axis])
        low = rng.uniform(0, room[axis] - length)
        start[axis] = low if direction[axis] > 0 else low + length
        return [tuple((start + direction * length * frame / (FRAMES - 1)).tolist()) for frame in range(FRAMES)]
    spot = (float(start[0]), float(start[1]))
    there = {"appears": range(when, FRAMES), "disappears": range(when)}.get(event, range(FRAMES))
    return [spot if frame in there else None for frame in range(FRAMES)]


def _meet(sprites: list[Sprite], ways: list[list[Spot]]) -> bool:
    """Whether two things come too near to each other in any frame."""
    for frame in range(FRAMES):
        boxes = [
            (*spot, spot[0] + sprite.alpha.shape[1], spot[1] + sprite.alpha.shape[0])
            for sprite, way in zip(sprites, ways, strict=True)
            if (spot := way[frame]) is not None
        ]
        for place, a in enumerate(boxes):
            for b in boxes[place + 1 :]:
                if max(a[0], b[0]) < min(a[2], b[2]) + GAP and max(a[1], b[1]) < min(a[3], b[3]) + GAP:
                    return True
    return False


def _draw(rng: np.random.Generator, sprites: list[Sprite], ways: list[list[Spot]]) -> tuple[np.ndarray, ...]:
    """The frames: one background, one light, and each frame's own grain."""
    behind = background(rng)
    light = int(rng.integers(2**31))
    frames = []
    for frame in range(FRAMES):
        pixels = behind.copy()
        for sprite, way in zip(sprites, ways, strict=True):
            if (spot := way[frame]) is not None:
                blend(pixels, sprite.rgb, sprite.alpha, round(spot[0]), round(spot[1]))
        grain = rng.normal(0, 2, pixels.shape)
        frames.append((finish(np.random.default_rng(light), pixels) + grain).clip(0, 255).astype(np.uint8))
    return tuple(frames)
