"""Generated ids -> typed results with scores, and what the model may write where objects are asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from ..engine.generate import Generation
from ..engine.scores import Calibration, box_score, mask_score, text_score
from ..errors import InputError, UsageError
from ..results import Box, Detections, Mask, Masks, Text
from ..tasks import Task, segment
from ..tasks.detect import MAX_OBJECTS, SEMICOLON, Found, Parsed
from ..tasks.grammar import DEFAULT_OBJECTS, ObjectGrammar
from ..tokenizer import Tokenizer
from .asking import How, check_names
from .pictures import Seen

MASK_CODEC_HINT = (
    "put the published vae-oid.npz (gs://big_vision/paligemma/vae-oid.npz) into the checkpoint's folder, "
    "or name it: load(..., codec=...), on the command line --codec"
)


class Finding(How, total=False):
    """How to find objects.

    `min_score`: leave out what scores less. `max_objects`: stop after so many, 64 unless told otherwise. `constrained`: let the model write
    only well-formed objects with the asked labels, none twice (default); False lets it write anything, which is then read with tolerance.
    `free_labels`: labels other than the asked ones are allowed.
    """

    min_score: float
    max_objects: int
    constrained: bool
    free_labels: bool


@dataclass(frozen=True)
class Search:
    """The options of `Finding` that are not of `How`, checked."""

    min_score: float = 0.0
    max_objects: int = DEFAULT_OBJECTS
    constrained: bool = True
    free_labels: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"min_score must be from 0 to 1, got {self.min_score}")
        if not 1 <= self.max_objects <= MAX_OBJECTS:
            raise UsageError(f"max_objects must be from 1 to {MAX_OBJECTS}, got {self.max_objects}")

    @classmethod
    def split(cls, options: Finding) -> tuple[Search, How]:
        """-> its own options, and those that say how to generate."""
        check_names(options, Finding)
        own = {field.name for field in dataclasses.fields(cls)}
        rest = How(**{name: value for name, value in options.items() if name not in own})  # pyright: ignore[reportArgumentType]
        return cls(**{name: value for name, value in options.items() if name in own}), rest  # pyright: ignore[reportArgumentType]

    def grammar(self, tokenizer: Tokenizer, names: Sequence[str], *, masks: bool) -> ObjectGrammar | None:
        """No names: objects without a label. What has no name was asked for as one thing that is there."""
        if not self.constrained:
            return None
        return ObjectGrammar(
            tokenizer,
            None if self.free_labels and names else tuple(names),
            masks=masks,
            max_objects=self.max_objects,
            allow_none=bool(names),
        )

    def labels(self, names: Sequence[str]) -> Sequence[str] | None:
        """What labels the parser is to accept; None: any."""
        return None if self.free_labels else names


class MaskDecoder(Protocol):
    """What makes masks of the codes they are written in."""

    def shapes(self, codes: Sequence[Sequence[int]]) -> np.ndarray:
        """16 codes each -> soft masks (N, 64, 64), float32, whose boundary is at 0."""
        ...


@dataclass(frozen=True)
class Reader:
    """Needs the tokenizer for text, the codec for masks."""

    tokenizer: Tokenizer
    codec: MaskDecoder | None
    calibration: Calibration

    def text(self, task: Task, generation: Generation, prompt: str, seen: Seen) -> Text:
        """`task`: one that answers in words."""
        score = self.calibration("text", text_score(generation))
        kind = cast(type[Text], task.result)
        return kind(task.parse(self.tokenizer.decode(generation.ids)), score, prompt, generation.stop, picture=seen.picture)

    def boxes(self, parsed: Parsed, generation: Generation, search: Search, prompt: str, seen: Seen) -> Detections:
        boxes = tuple(self._box(found, generation, seen) for found in parsed.objects[: search.max_objects])
        raw = (self.tokenizer.decode(generation.ids), prompt, generation.stop, parsed.leftover, parsed.invalid)
        result = Detections(boxes, seen.width, seen.height, *raw, picture=seen.picture)
        return result.above(search.min_score) if search.min_score > 0 else result

    def masks(self, parsed: Parsed, generation: Generation, search: Search, prompt: str, seen: Seen) -> Masks:
        objects = parsed.objects[: search.max_objects]
        shapes = self._shapes(objects)
        masks = tuple(self._mask(found, shape, generation, seen) for found, shape in zip(objects, shapes, strict=True))
        raw = (self.tokenizer.decode(generation.ids), prompt, generation.stop, parsed.leftover, parsed.invalid)
        result = Masks(masks, seen.width, seen.height, *raw, picture=seen.picture)
        return result.above(search.min_score) if search.min_score > 0 else result

    def _box(self, found: Found, generation: Generation, seen: Seen) -> Box:
        return found.box(seen.width, seen.height, self.calibration("box", box_score(generation, found, self._separates)))

    def _mask(self, found: Found, shape: np.ndarray, generation: Generation, seen: Seen) -> Mask:
        covered = segment.paste(shape, found.bins, seen.width, seen.height)
        score = self.calibration("mask", mask_score(generation, found, self._separates))
        return Mask(found.label, self._box(found, generation, seen), covered, score, found.codes)

    def _shapes(self, objects: Sequence[Found]) -> Sequence[np.ndarray]:
        """Soft masks (64, 64) of objects that have codes."""
        assert self.codec is not None, "masks are asked for only where there is a codec"
        return list(self.codec.shapes([found.codes or () for found in objects])) if objects else ()

    def _separates(self, id: int) -> bool:
        return SEMICOLON in self.tokenizer.piece(id)


def shares(edges: Sequence[float], seen: Seen) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in pixels -> y0, x0, y1, x1 as shares of height and width, cut at the picture's edges.

    Raises `InputError` for what is no box, or holds nothing of the picture.
    """
    try:
        x0, y0, x1, y1 = map(float, () if isinstance(edges, str) else edges)
    except (TypeError, ValueError):
        x0 = y0 = x1 = y1 = math.nan
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise InputError(f"a box has four edges, left, top, right and bottom in pixels; found {edges!r}")
    left, top, right, bottom = max(x0, 0.0), max(y0, 0.0), min(x1, seen.width), min(y1, seen.height)
    if not (left < right and top < bottom):
        raise InputError(
            f"the box {tuple(edges)} holds nothing of a picture of {seen.width} x {seen.height} pixels",
            hint="left, top, right, bottom, with left < right and top < bottom",
        )
    return top / seen.height, left / seen.width, bottom / seen.height, right / seen.width
