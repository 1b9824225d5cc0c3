"""There and back: what is left of a box and a mask once they are location tokens and 16 mask tokens. No model answers better than that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..data.batch import mask_codes
from ..data.lessons import Codes, lesson
from ..data.records import Corners, Record, Thing
from ..model.mask_codec import MaskCodec
from ..tasks import detect, segment
from ..tasks.detect import Found, tidy

MASKED = ("segment", "refer")
"""Tasks that ask for masks."""


@dataclass(frozen=True)
class Trip:
    """`given`: the box as annotated, `box`: after rounding; `error`: the farthest that one of its edges moved; all in pixels. `mask` and
    `back`: before and after, or None."""

    label: str
    given: Corners
    box: Corners
    mask: np.ndarray | None = None
    back: np.ndarray | None = None

    @property
    def error(self) -> float:
        return max(abs(a - b) for a, b in zip(self.box, self.given, strict=True))

    @property
    def iou(self) -> float | None:
        """Of the mask before and after; of an empty mask 0."""
        if self.mask is None or self.back is None:
            return None
        union = int((self.mask | self.back).sum())
        return int((self.mask & self.back).sum()) / union if union else 0.0


@dataclass(frozen=True)
class Drawn:
    """An outline that has been drawn already: (height, width)."""

    pixels: np.ndarray

    def mask(self, width: int, height: int) -> np.ndarray:
        return self.pixels


def trips(record: Record, size: tuple[int, int], classes: Sequence[str], codec: MaskCodec | None) -> list[Trip]:
    """Every thing that the record asks for, written as training text and read again. `size`: width and height of the picture.

    Raises `ValueError` for an outline that is none, and for masks without a codec.
    """
    masked = record.task in MASKED and codec is not None
    encode = mask_codes(codec) if codec is not None else None
    written: list[tuple[Thing, Found, np.ndarray | None]] = []
    for thing in record.things:
        mask = thing.outline.mask(*size) if masked and thing.outline is not None else None
        found = _write(record, thing if mask is None else replace(thing, outline=Drawn(mask)), size, classes, encode)
        if found is not None:
            written.append((thing, found, mask))
    decode = mask_reader(codec) if codec is not None else None
    result = []
    for thing, found, mask in written:
        box = found.box(*size)
        corners = (box.x0, box.y0, box.x1, box.y1)
        back = None if mask is None or decode is None else decode(found, size)
        result.append(Trip(tidy(thing.label), thing.box, corners, mask if back is not None else None, back))
    return result


def mask_reader(codec: MaskCodec) -> Callable[[Found, tuple[int, int]], np.ndarray | None]:
    """An object of a text with mask tokens -> the pixels it covers of a picture of that size, as the predictor reads them."""

    @torch.inference_mode()
    def read(found: Found, size: tuple[int, int]) -> np.ndarray | None:
        if found.codes is None:
            return None
        soft = codec.decode(torch.tensor([found.codes]))[0].float().numpy()
        return segment.paste(soft, found.bins, *size)

    return read


def _write(record: Record, thing: Thing, size: tuple[int, int], classes: Sequence[str], codes: Codes | None) -> Found | None:
    """As its text says it; None if the prompt does not ask for it. Each thing by itself, so that nobody has to say which became which."""
    parsed = detect.parse(lesson(replace(record, things=(thing,)), size, classes=classes, codes=codes).suffix)
    return parsed.objects[0] if parsed.objects else None


@dataclass(frozen=True)
class Worst:
    """A thing that comes back badly: number of its item, where it stands, and how well or badly."""

    number: int
    where: str
    label: str
    value: float


@dataclass(frozen=True)
class Rounding:
    """Over all things looked at. `error`: pixels, of the box that moved farthest; `thin`: boxes thinner than a location bin;
    `tiny`: boxes that are less than a patch wide and high once the model has shrunk the picture; `iou_*`: of masks, `low` those below
    a half; `worst`: the masks that come back worst."""

    things: int = 0
    error: float = 0.0
    error_where: str = ""
    thin: int = 0
    tiny: int = 0
    masks: int = 0
    iou_mean: float | None = None
    iou_low: int = 0
    worst: tuple[Worst, ...] = ()


WORST = 8


class RoundingSum:
    """`Rounding`, a record at a time."""

    def __init__(self, image_size: int, patch_size: int):
        self.image_size, self.patch_size = image_size, patch_size
        self.things = self.thin = self.tiny = 0
        self.error, self.error_where = 0.0, ""
        self.ious: list[Worst] = []

    def add(self, number: int, record: Record, size: tuple[int, int], found: Sequence[Trip]) -> None:
        for trip in found:
            sides = [(trip.given[i + 2] - trip.given[i]) / size[i] for i in (0, 1)]
            self.things += 1
            self.thin += min(sides) < detect.from_bin(1)
            self.tiny += max(sides) * self.image_size < self.patch_size
            if trip.error > self.error:
                self.error, self.error_where = trip.error, record.where
            if trip.iou is not None:
                self.ious.append(Worst(number, record.where, trip.label, trip.iou))

    def result(self) -> Rounding:
        values = [one.value for one in self.ious]
        return Rounding(
            self.things, self.error, self.error_where, self.thin, self.tiny, len(values),
            float(np.mean(values)) if values else None,
            sum(value < 0.5 for value in values),
            tuple(sorted(self.ious, key=lambda one: one.value)[:WORST]),
        )  # fmt: skip
