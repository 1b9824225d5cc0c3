"""`python -m bench.tiles`: what tiles gain on large pictures with small things and words, and what they cost. The bundled model.

A picture is four times as wide and high as the model sees, on one background: four kinds of things, four times each, as large as in the
model's own world; or eight printed words. In the whole picture they are a quarter of that.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

import paligemma
from paligemma.jobs import tiles
from paligemma.jobs.asked import Asked
from paligemma.jobs.items import Item
from paligemma.jobs.work import Order, answer, open_item
from paligemma.nano.metrics import average_precision
from paligemma.nano.names import things
from paligemma.nano.sprites import SIZE, warp
from paligemma.nano.world import Split, World, background, blend, finish
from paligemma.predictor import Predictor
from paligemma.results import Box, Detections

TIMES = 4
KINDS, EACH, WORDS = 4, 4, 8
GAP = 6
OVERLAPS = (0.25, 0.5)


@dataclass(frozen=True)
class Large:
    picture: Image.Image
    boxes: tuple[Box, ...] = ()
    words: tuple[str, ...] = ()


def of_things(seed: int) -> Large:
    rng = np.random.default_rng([seed, 0x71])
    kinds = [things()[int(kind)] for kind in rng.choice(len(things()), KINDS, replace=False)]
    sprites = [(kind.label, warp(kind, rng)) for kind in kinds for _ in range(EACH)]
    pixels = background(rng, TIMES * SIZE)
    boxes: list[Box] = []
    for label, sprite in sprites:
        if (spot := _free(rng, sprite.alpha.shape, boxes)) is not None:
            blend(pixels, sprite.rgb, sprite.alpha, *spot)
            boxes.append(_box(label, spot, sprite.alpha.shape))
    return Large(Image.fromarray(finish(rng, pixels)), boxes=tuple(boxes))


def of_words(seed: int, world: World) -> Large:
    rng = np.random.default_rng([seed, 0x72])
    pixels = np.full((TIMES * SIZE, TIMES * SIZE, 3), rng.integers(160, 256, 3), np.uint8)
    placed: list[Box] = []
    for _ in range(WORDS):
        word = world.words[int(rng.integers(len(world.words)))]
        patch, _ = world.fonts.word(rng, word, rng.uniform(-5, 5), max_width=SIZE - 8, max_height=SIZE / 3)
        if (spot := _free(rng, patch.shape, placed)) is not None:
            ink = np.broadcast_to(rng.integers(0, 80, 3), (*patch.shape, 3))
            blend(pixels, ink, patch, *spot)
            placed.append(_box(word, spot, patch.shape))
    return Large(Image.fromarray(pixels), words=tuple(box.label for box in placed))


def _free(rng: np.random.Generator, shape: Sequence[int], boxes: Sequence[Box]) -> tuple[int, int] | None:
    """A place for something of that height and width, away from all others."""
    for _ in range(200):
        spot = int(rng.integers(TIMES * SIZE - shape[1])), int(rng.integers(TIMES * SIZE - shape[0]))
        new = _box("", spot, shape)
        if all(
            new.x0 > box.x1 + GAP or box.x0 > new.x1 + GAP or new.y0 > box.y1 + GAP or box.y0 > new.y1 + GAP for box in boxes
        ):  # fmt: skip
            return spot
    return None


def _box(label: str, spot: tuple[int, int], shape: Sequence[int]) -> Box:
    return Box(label, spot[0], spot[1], spot[0] + shape[1], spot[1] + shape[0])


def ask(model: Predictor, large: Large, task: Asked, in_tiles: bool) -> dict:
    order = Order((task,), tiles=in_tiles)
    item = Item("x", "x", _open=functools.partial(_same, large.picture))
    (done,) = answer(model, order, [open_item(item, model.config, order)])
    return done.rows[0]["result"]


def _same(picture: Image.Image) -> Image.Image:
    return picture


def measured(model: Predictor, pictures: Sequence[Large], task: Callable[[Large], Asked], in_tiles: bool) -> tuple[list[dict], float]:
    begun = time.perf_counter()
    found = [ask(model, large, task(large), in_tiles) for large in pictures]
    return found, (time.perf_counter() - begun) / len(pictures)


def places(pictures: Sequence[Large], found: Sequence[dict]) -> str:
    guesses = [Detections.from_dict(one).boxes for one in found]
    truths = [large.boxes for large in pictures]
    hits = sum(
        any(guess.label == truth.label and guess.iou(truth) >= 0.5 for guess in guessed)
        for large, guessed in zip(truths, guesses, strict=True)
        for truth in large
    )
    score = average_precision(truths, guesses, "ap50")
    return f"AP50 {score.value:.3f} [{score.low:.3f}, {score.high:.3f}], found {hits / sum(map(len, truths)):.3f}"


def words(pictures: Sequence[Large], found: Sequence[dict]) -> str:
    wanted = said = right = 0
    for large, one in zip(pictures, found, strict=True):
        lines = one["text"].split("\n") if one["text"] else []
        wanted, said = wanted + len(large.words), said + len(lines)
        right += sum(min(lines.count(word), large.words.count(word)) for word in set(large.words))
    return f"words found {right / wanted:.3f}, lines right {right / max(said, 1):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.tiles", description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="pictures of each kind")
    parser.add_argument("--model", default=None)
    options = parser.parse_args()
    model = paligemma.load(options.model)
    world = World(Split.TEST)
    kinds = {
        "things": ([of_things(seed) for seed in range(options.count)], lambda large: Asked("detect", (_names(large),)), places),
        "words": ([of_words(seed, world) for seed in range(options.count)], lambda large: Asked("ocr"), words),
    }
    print(f"{options.count} pictures of {TIMES * SIZE} x {TIMES * SIZE} pixels each; the model sees {model.config.vision.image_size}")
    for name, (pictures, task, judged) in kinds.items():
        found, seconds = measured(model, pictures, task, False)
        print(f"{name}, whole: {judged(pictures, found)}; {seconds:.2f} s a picture", flush=True)
        for overlap in OVERLAPS:
            tiles.OVERLAP = overlap
            count = len(tiles.tiles(TIMES * SIZE, TIMES * SIZE, model.config.vision.image_size))
            found, seconds = measured(model, pictures, task, True)
            print(f"{name}, {count} tiles, overlap {overlap}: {judged(pictures, found)}; {seconds:.2f} s a picture", flush=True)


def _names(large: Large) -> tuple[str, ...]:
    return tuple(dict.fromkeys(box.label for box in large.boxes))


if __name__ == "__main__":
    main()
