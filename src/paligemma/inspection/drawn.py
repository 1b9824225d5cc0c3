"""A record's picture with what its training text says drawn on it: the boxes and masks that the tokens stand for, over those annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from ..data.records import Record
from ..drawing import Shape, draw_shapes
from ..model.mask_codec import MaskCodec
from ..tasks import detect
from .trips import MASKED, mask_reader, trips

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def draw(picture: Image.Image, record: Record, classes: Sequence[str], text: str, codec: MaskCodec | None) -> tuple[Image.Image, int]:
    """The picture and how many things were drawn. `text`: what the tokens of the answer spell, or of a prompt that holds a box.

    Masks are filled as 16 tokens give them back; the outline that was annotated is a white line. Raises as `trips`.
    """
    objects = detect.parse(text).objects
    decode = mask_reader(codec) if codec is not None else None
    notes: Mapping[tuple[float, ...], float] = {}
    if record.task in MASKED:
        notes = {trip.box: trip.iou for trip in trips(record, picture.size, classes, codec) if trip.iou is not None}
    shapes = []
    for found in objects:
        box = found.box(*picture.size)
        corners = (box.x0, box.y0, box.x1, box.y1)
        label = found.label or " ".join(record.asked)
        note = f"IoU {notes[corners]:.2f}" if corners in notes else ""
        shapes.append(Shape(label, corners, note, None if decode is None else decode(found, picture.size)))
    drawn = draw_shapes(picture, shapes)
    if record.task in MASKED:
        for thing in record.things:
            if thing.outline is not None:
                _line(drawn, thing.outline.mask(*picture.size))
    return drawn, len(shapes)


def _line(drawn: Image.Image, mask: np.ndarray) -> None:
    """The edge of a mask: white, with black outside, so that it shows on everything."""
    whole = Image.fromarray(np.asarray(mask, np.uint8) * 255).resize(drawn.size, Image.Resampling.NEAREST)
    width = max(3, round(max(drawn.size) / 250) // 2 * 2 + 1)
    inner = whole.filter(ImageFilter.MinFilter(width))
    outer = whole.filter(ImageFilter.MaxFilter(3))
    inside, around = np.asarray(whole) > 0, np.asarray(outer) > 0
    drawn.paste(WHITE, mask=Image.fromarray((inside & (np.asarray(inner) == 0)).astype(np.uint8) * 255))
    drawn.paste(BLACK, mask=Image.fromarray((around & ~inside).astype(np.uint8) * 255))
