"""A record -> what the model reads and what it should write: prompt and answer as text, masks as codes, one answer of several.

The texts themselves are the tasks' (`paligemma.tasks`); decided here is only which classes a prompt names and which answer is taught.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from ..results import Box
from ..tasks import detect, refer, segment
from ..tasks.detect import tidy
from .records import Corners, Record, Thing

MOST_CLASSES = 16
"""Names in one prompt of a data set that has more: those that are there, filled up with some that are not."""

Codes = Callable[[np.ndarray], tuple[int, ...]]
"""float32 (64, 64) in [0, 1], what a box holds of a mask -> 16 mask codes."""


@dataclass(frozen=True)
class Lesson:
    """Text before and after the separator."""

    prefix: str
    suffix: str


def lesson(
    record: Record,
    size: tuple[int, int],
    *,
    classes: Sequence[str] = (),
    codes: Codes | None = None,
    rng: np.random.Generator | None = None,
) -> Lesson:
    """What one record teaches about a picture of `size` (width, height).

    `classes`: all names of the data set, for records that do not say what is asked. `codes`: the mask codec, for tasks that outline.
    `rng` draws one of several answers and the classes of a long list; without it the first answer and the first classes are taken.
    Raises `UsageError` for masks without a codec, `ValueError` for an outline that is none.
    """
    if not record.in_places:
        answers = record.answers
        return Lesson(record.prompt, answers[0] if rng is None else answers[rng.integers(len(answers))])
    if record.task == "refer":
        thing = record.things[0]
        return Lesson(refer.prompt(record.asked[0]), refer.target(bins_of(thing.box, size), _mask_codes(thing, size, codes)))
    names = asked_classes(record, classes, rng)
    things = [thing for thing in record.things if tidy(thing.label) in names]
    if record.task == "detect":
        return Lesson(detect.prompt(names), detect.target(((t.label, bins_of(t.box, size)) for t in things), names))
    found = ((t.label, bins_of(t.box, size), _mask_codes(t, size, codes)) for t in things)
    return Lesson(segment.prompt(names), segment.target(found, names))


def asked_classes(record: Record, classes: Sequence[str], rng: np.random.Generator | None) -> tuple[str, ...]:
    """The names its prompt holds: those the record names, or the data set's, at most `MOST_CLASSES` of them."""
    if record.asked:
        return tuple(map(tidy, record.asked))
    names = tuple(dict.fromkeys(map(tidy, classes or [thing.label for thing in record.things])))
    if len(names) <= MOST_CLASSES:
        return names
    there = {tidy(thing.label) for thing in record.things}
    absent = [name for name in names if name not in there]
    room = max(MOST_CLASSES - len(there), 0)
    drawn = set(absent[:room] if rng is None else (absent[i] for i in rng.permutation(len(absent))[:room]))
    return tuple(name for name in names if name in there or name in drawn)


def bins_of(box: Corners, size: tuple[int, int]) -> detect.Bins:
    """A box in pixels of a picture of `size` (width, height) -> its location bins."""
    return detect.pixel_bins(Box("", *box), *size)


def _mask_codes(thing: Thing, size: tuple[int, int], codes: Codes | None) -> tuple[int, ...]:
    if codes is None:
        raise UsageError("masks are written with the mask codec, and this model has none", hint="name one with --codec")
    if thing.outline is None:
        raise ValueError(f"{thing.label or 'the thing'} has a box but no outline")
    return codes(segment.crop(thing.outline.mask(*size), Box("", *thing.box)))
