"""Measure an encoder on fresh scenes: does a text find its picture, a picture its text, and a picture the same scene drawn once more?

Scenes come from the test stream, no two of them with the same caption. Printed words are apart: there a text is what is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from ..embedding import Encoder
from ..evaluation.retrieval import ranks, recall_at
from .metrics import RESAMPLES
from .names import LANGUAGES
from .pairs import content, said
from .redrawn import redraw
from .world import SIZE, Scene, Split, World

AT = (1, 5, 10)
MAIN = "text -> image, en"
"""The search whose recall has targets."""
Found = dict[str, dict[str, float]]


def measure(encoder: Encoder, count: int, seed: int = 1, *, split: Split = Split.TEST, log: Callable[[str], None] = print) -> Found:
    """Search -> its recall at 1, 5 and 10, its median rank, its number of candidates, and an interval of recall at 1 (95 % bootstrap)."""
    side = max(SIZE, encoder.config.vision.image_size)
    pictured = list(_distinct(World(split, seed=seed, text_share=0.0, side=side), count))
    scenes = [scene for scene, _ in pictured]
    seen = encoder.pictures([Image.fromarray(scene.pixels) for scene in scenes])
    again = encoder.pictures([Image.fromarray(redrawn.pixels) for _, redrawn in pictured])
    found: Found = {}
    for lang in LANGUAGES:
        read = encoder.texts([said(scene, lang) for scene in scenes])
        found[f"text -> image, {lang}"] = _scores(read @ seen.T)
        found[f"image -> text, {lang}"] = _scores(seen @ read.T)
    found["image -> image, drawn once more"] = _scores(again @ seen.T)
    printed = list(_distinct_prints(World(split, seed=seed, text_share=1.0, side=side), count))
    similarity = encoder.texts([said(scene, "en") for scene in printed]) @ encoder.pictures([Image.fromarray(s.pixels) for s in printed]).T
    found["printed words -> image"] = _scores(similarity)
    for name, scores in found.items():
        log(f"{name:<34}" + "  ".join(f"{key} {value:.3f}" for key, value in scores.items()))
    return found


def _distinct(world: World, count: int) -> Iterator[tuple[Scene, Scene]]:
    """Scenes of things, each with another drawing of it, no two with the same caption."""
    known: set[str] = set()
    index = 0
    while len(known) < count:
        scene = world.scene(index)
        again = redraw(scene, np.random.default_rng([world.seed, world.split.value, index, 0xD0]))
        index += 1
        if scene.objects and again is not None and content(scene) not in known:
            known.add(content(scene))
            yield scene, again


def _distinct_prints(world: World, count: int) -> Iterator[Scene]:
    known: set[str] = set()
    index = 0
    while len(known) < count:
        scene = world.scene(index)
        index += 1
        if content(scene) not in known:
            known.add(content(scene))
            yield scene


def _scores(similarity: np.ndarray) -> dict[str, float]:
    places = ranks(similarity)
    rng = np.random.default_rng(0)
    first = [(places[rng.integers(0, len(places), len(places))] <= 1).mean() for _ in range(RESAMPLES)]
    scores = {f"recall@{k}": recall_at(k, places) for k in AT} | {"median rank": float(np.median(places))}
    return scores | {"candidates": similarity.shape[1], "low": float(np.percentile(first, 2.5)), "high": float(np.percentile(first, 97.5))}
