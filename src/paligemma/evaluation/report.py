"""One page that says how good a model is and shows where it fails: needs no other file, no network and no script."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..drawing import data_url
from ..errors import InputError, UsageError
from ..image import Clip
from ..pages.plots import length_plot
from ..pages.templates import templates
from ..results import Box, Detections, Mask, Masks
from ..video import DEFAULT_FRAMES
from .gain import Gain
from .places import mask_of
from .plots import SIDE as PLOT
from .plots import interval_plot, reliability_plot
from .predict import open_pictures
from .predictions import Prediction, read_predictions
from .scores import Scores

FILE = "report.html"
WORST = 12
RANDOM = 12
SEED = 0
SIDE = 520
"""Longest side, in pixels, of a picture in the page."""


@dataclass(frozen=True)
class Example:
    """A record in the page. `pictures`: (data URL, what it shows); `expected`: answers with how many people gave them."""

    id: str
    prompt: str
    answer: str
    expected: tuple[tuple[str, int], ...]
    value: str
    score: str
    pictures: tuple[tuple[str, str], ...]
    note: str = ""


def write_report(scores: Scores, folder: Path, predictions: Path | None = None, *, before: Gain | None = None) -> Path:
    """Write `report.html` of the predictions in `folder` (or of that file); returns its path. `before`: what an earlier measurement said.

    A picture that is no longer where it was is left out, and the page says so.
    """
    by_id = {one.id: one for one in read_predictions(predictions or folder / "predictions.jsonl")}
    values = dict(scores.each)
    worst = scores.worst(WORST)
    rest = [id for id in values if id not in set(worst)]
    drawn = random.Random(SEED).sample(rest, min(RANDOM, len(rest)))
    template = templates("evaluation").get_template(FILE)
    page = template.render(
        scores=scores,
        kind=scores.kind,
        before=before,
        intervals=None if before is None else _intervals(scores, before),
        examples=[
            (name, [_example(scores, by_id[id], values[id]) for id in ids])
            for name, ids in (("The worst", worst), ("Drawn at random", drawn))
        ],
        reliability=[(kind, found, reliability_plot(found)) for kind, found in scores.reliability.items()],
        lengths=length_plot(scores.lengths.histogram, ("tokens", "answers"), "Lengths of the answers in tokens", size=(PLOT, PLOT // 2)),
    )
    path = folder / FILE
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _intervals(scores: Scores, before: Gain) -> str:
    rows = [("before", before.value, before.interval), ("now", scores.value, scores.interval)]
    return interval_plot(rows, max(1.0, before.interval[1], scores.interval[1]), scores.kind.shown, scores.kind.keys[scores.kind.main])


def _example(scores: Scores, one: Prediction, value: float) -> Example:
    note, pictures = "", ()
    try:
        pictures = tuple((data_url(picture, SIDE), what) for picture, what in _pictures(one))
    except (InputError, UsageError) as error:
        note = error.message
    objects = bool(one.things) or one.task in ("detect", "segment", "refer")
    return Example(
        id=one.id,
        prompt=one.prompt,
        answer=str(one.answer()) if one.result else "",
        expected=() if objects else tuple(Counter(one.answers).most_common()),
        value=scores.kind.shown(value),
        score="" if one.score is None else f"{one.score:.2f}",
        pictures=pictures,
        note=note,
    )


def _pictures(one: Prediction) -> list[tuple[Image.Image, str]]:
    """The picture, or where objects are to be found one with the true ones and one with those of the answer."""
    opened = open_pictures([Path(path) for path in one.pictures], DEFAULT_FRAMES)
    frames = opened.frames if isinstance(opened, Clip) else (opened,)
    if one.task not in ("detect", "segment", "refer"):
        return [(frames[0], "the picture" if len(frames) == 1 else f"the first of {len(frames)} pictures")]
    return [(truth(one).draw(frames[0]), "the truth"), (one.answer().draw(frames[0]), "the answer")]


def truth(one: Prediction) -> Detections | Masks:
    """What should have been found, fit to be drawn."""
    width, height = one.size or (0, 0)
    boxes = [Box(place.label, *place.box) for place in one.things if not place.ignored]
    outlines = [place.rle for place in one.things if not place.ignored]
    if one.task == "detect" or not all(outlines):
        return Detections(tuple(boxes), width, height)
    masks = (Mask(box.label, box, mask_of(rle)) for box, rle in zip(boxes, outlines, strict=True) if rle)
    return Masks(tuple(masks), width, height)
