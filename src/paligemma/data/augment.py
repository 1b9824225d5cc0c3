"""Changed pictures with changed truth: crop, mirror, colour, JPEG. Boxes and masks move along, and words such as "left" turn around.

Each change is off unless asked for. The same generator gives the same change.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..errors import UsageError
from .outlines import Outline
from .records import Corners, Record, Thing

KEPT = 0.35
"""A thing stays in a cropped picture if so much of its box does."""
_MIRRORED = re.compile(r"\b(left|right)(most|ward|wards|-hand|-most)?\b", re.IGNORECASE)
_ONE_SIDED = re.compile(
    r"\b(clockwise|counter-?clockwise|anti-?clockwise|links|rechts|gauche|droite|izquierd[ao]|derech[ao])\b|[左右]", re.IGNORECASE
)
"""Words of a side that are not turned around here: a record with one of them is not mirrored."""


@dataclass(frozen=True)
class Augment:
    """How much of what. All 0: nothing changes.

    `crop`: at most this share of each side is cut off; only what is found in places (boxes, masks) follows a crop, so other records keep
    their whole picture. `flip`: probability of mirroring left and right; a record whose words cannot follow, or which reads text, is not
    mirrored. `colour`: brightness, contrast and saturation change by at most this share. `jpeg`: probability of JPEG, quality 30 to 95.
    """

    crop: float = 0.0
    flip: float = 0.0
    colour: float = 0.0
    jpeg: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("crop", 0.9), ("flip", 1.0), ("colour", 0.9), ("jpeg", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"augment.{name} must be 0 to {most:g}, got {getattr(self, name):g}")

    def __bool__(self) -> bool:
        return any((self.crop, self.flip, self.colour, self.jpeg))

    def __call__(self, picture: Image.Image, record: Record, rng: np.random.Generator) -> tuple[Image.Image, Record]:
        """A picture and its record, changed. All draws are made whether used or not, so that one switch does not change the others'."""
        draws = rng.random(9)
        if self.crop and record.in_places and record.task != "refer":
            picture, record = crop(picture, record, _window(picture.size, self.crop, draws[:4]))
        if draws[4] < self.flip and can_mirror(record):
            picture, record = ImageOps.mirror(picture), mirror(record, picture.width)
        if self.colour:
            for enhance, draw in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), draws[5:8], strict=True):
                picture = enhance(picture).enhance(1 + self.colour * (2 * draw - 1))
        if draws[8] < self.jpeg:
            picture = _compressed(picture, int(rng.integers(30, 96)))
        return picture, record


def can_mirror(record: Record) -> bool:
    """Whether its words can follow: none names a side in a way that is not understood here, and nothing printed is to be read."""
    words = (record.prompt, *record.answers, *record.asked, *(thing.label for thing in record.things))
    return record.task != "ocr" and "<loc" not in record.prompt and not any(_ONE_SIDED.search(text) for text in words)


def mirror(record: Record, width: int) -> Record:
    """The record of the picture seen in a mirror."""
    return replace(
        record,
        prompt=_other_side(record.prompt),
        answers=tuple(map(_other_side, record.answers)),
        asked=tuple(map(_other_side, record.asked)),
        things=tuple(_mirrored(thing, width) for thing in record.things),
        ignored=tuple(_mirrored(thing, width) for thing in record.ignored),
    )


def crop(picture: Image.Image, record: Record, window: tuple[int, int, int, int]) -> tuple[Image.Image, Record]:
    """Picture and record of a window (left, top, right, bottom) in pixels. Things that lose too much are gone."""
    things, ignored = (_in_window(group, picture.size, window) for group in (record.things, record.ignored))
    return picture.crop(window), replace(record, things=things, ignored=ignored)


@dataclass(frozen=True)
class Mirrored:
    """An outline with left and right exchanged."""

    outline: Outline

    def mask(self, width: int, height: int) -> np.ndarray:
        return self.outline.mask(width, height)[:, ::-1]


@dataclass(frozen=True)
class Cropped:
    """What a window shows of an outline that was made for a picture of `size` (width, height)."""

    outline: Outline
    size: tuple[int, int]
    window: tuple[int, int, int, int]

    def mask(self, width: int, height: int) -> np.ndarray:
        left, top, right, bottom = self.window
        if (right - left, bottom - top) != (width, height):
            raise ValueError(f"the window is {right - left} x {bottom - top} pixels, the picture {width} x {height}")
        return self.outline.mask(*self.size)[top:bottom, left:right]


def _mirrored(thing: Thing, width: int) -> Thing:
    x0, y0, x1, y1 = thing.box
    outline = None if thing.outline is None else Mirrored(thing.outline)
    return Thing(_other_side(thing.label), (width - x1, y0, width - x0, y1), outline)


def _in_window(things: Iterable[Thing], size: tuple[int, int], window: tuple[int, int, int, int]) -> tuple[Thing, ...]:
    moved = [(thing, _clipped(thing.box, window)) for thing in things]
    return tuple(
        Thing(thing.label, box, None if thing.outline is None else Cropped(thing.outline, size, window))
        for thing, box in moved
        if _area(box) >= KEPT * _area(thing.box)
    )


def _other_side(text: str) -> str:
    def turned(match: re.Match[str]) -> str:
        word = match[1]
        other = "right" if word.lower() == "left" else "left"
        spelled = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
        return spelled + (match[2] or "")

    return _MIRRORED.sub(turned, text)


def _window(size: tuple[int, int], most: float, draws: np.ndarray) -> tuple[int, int, int, int]:
    """Each side loses up to half of `most`; at least one pixel stays."""
    width, height = size
    left, right = int(width * most / 2 * draws[0]), width - int(width * most / 2 * draws[1])
    top, bottom = int(height * most / 2 * draws[2]), height - int(height * most / 2 * draws[3])
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _clipped(box: Corners, window: tuple[int, int, int, int]) -> Corners:
    left, top, right, bottom = window
    x0, x1 = (min(max(x, left), right) - left for x in (box[0], box[2]))
    y0, y1 = (min(max(y, top), bottom) - top for y in (box[1], box[3]))
    return x0, y0, x1, y1


def _area(box: Corners) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _compressed(picture: Image.Image, quality: int) -> Image.Image:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality)
    return Image.open(io.BytesIO(written.getvalue())).convert("RGB")
