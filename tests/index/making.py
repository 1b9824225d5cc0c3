"""An encoder made of pixels and words: how much of a picture is of which colour, and which colours a text names. And pictures for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from paligemma.image import squeeze
from paligemma.index.building import Builder, Report
from paligemma.index.entries import Entry, Facts
from paligemma.index.store import Index, writing

COLOURS = {
    "red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "white": (255, 255, 255), "black": (0, 0, 0),
    "pink": (255, 120, 200), "grey": (128, 128, 128),
}  # fmt: skip


class ColourEncoder:
    name = "colours-1"
    dimensions = len(COLOURS)
    scale, bias = 10.0, -5.0
    config = SimpleNamespace(vision=SimpleNamespace(image_size=12), resize="bilinear")

    def __init__(self):
        self.seen = 0

    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        self.seen += len(pictures)
        palette = np.array(list(COLOURS.values()), np.float32)
        shares = []
        for picture in pictures:
            pixels = squeeze(picture, 12, "bilinear").astype(np.float32).reshape(-1, 1, 3)
            nearest = ((pixels - palette) ** 2).sum(-1).argmin(1)
            shares.append(np.bincount(nearest, minlength=len(palette)) / len(pixels))
        return unit(np.array(shares))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.array([[text.split().count(colour) for colour in COLOURS] for text in texts], np.float32) + 1e-3)


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def paint(path: Path, *colours: str, size: tuple[int, int] = (24, 12)) -> Path:
    """A picture of upright stripes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size)
    for number, colour in enumerate(colours):
        stripe = (number * size[0] // len(colours), 0, (number + 1) * size[0] // len(colours), size[1])
        picture.paste(COLOURS[colour], stripe)
    picture.save(path)
    return path


def facts(root: Path | str = "/pictures") -> Facts:
    return Facts(ColourEncoder.name, ColourEncoder.dimensions, "", str(root))


def entry(number: int, vector: np.ndarray | None = None, **more) -> Entry:
    """Number `number`, with a vector of its own."""
    own = np.random.default_rng(number).standard_normal((1, ColourEncoder.dimensions))
    given = {
        "id": f"id{number}",
        "path": f"{number}.png",
        "digest": f"digest{number}",
        "modified": number,
        "size": number,
        "width": 20,
        "height": 10,
    }
    return Entry(**{**given, "vector": unit(own)[0] if vector is None else vector, **more})


def build(root: Path, where: Path | str, encoder: ColourEncoder | None = None, **how) -> Report:
    encoder = encoder or ColourEncoder()
    with writing(where, facts(root)) as writer:
        return Builder(writer, root, encoder, **how).run()


def held(where: Path | str) -> dict[str, Entry]:
    """Everything in an index, by path."""
    index = Index.open(where)
    entries = index.entries_of([row["id"] for row in index.columns(["id"])])
    assert len(entries) == index.count()
    return {one.path: one for one in entries.values()}
