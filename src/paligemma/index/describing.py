"""What a PaliGemma is asked about each picture of an index: captions, the text in it, objects of some classes."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..predictor import Predictor
from ..predictor.pictures import Picture, encode
from ..tasks.caption import without_places
from .entries import Entry


@dataclass(frozen=True)
class Wanted:
    """`languages`: of captions. `text`: what is printed in the picture. `classes`: of objects, with at least `min_score`. `model`: who is
    asked."""

    languages: tuple[str, ...] = ()
    text: bool = False
    classes: tuple[str, ...] = ()
    model: str | None = None
    min_score: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.languages or self.text or self.classes)

    def asks(self, what: str) -> bool:
        """For "captions", "text" or "objects"."""
        return bool({"captions": self.languages, "text": self.text, "objects": self.classes}[what])

    def lacking(self, known: Known) -> Wanted:
        """What is still to be asked about a picture: what it lacks, or everything where another model was asked."""
        if not self or known.model != self.model:
            return self
        missing = tuple(language for language in self.languages if language not in known.languages)
        classes = tuple(name for name in self.classes if name not in known.classes)
        return dataclasses.replace(self, languages=missing, text=self.text and not known.text, classes=classes)


NOTHING = Wanted()


class Known(NamedTuple):
    """What was asked about a picture already, and of whom."""

    model: str | None
    languages: Collection[str]
    text: bool
    classes: tuple[str, ...]

    @classmethod
    def of(cls, entry: Entry) -> Known:
        return cls(entry.model, entry.captions or {}, entry.text is not None, entry.classes or ())


def describe(predictor: Predictor, entries: Sequence[Entry], pictures: Sequence[Picture], wanted: Wanted) -> list[Entry]:
    """The entries with what the model says of the pictures, each of which goes through the image tower once, whatever is asked.

    What is known is not asked again; what another model said is left out: an entry has one author.
    """
    alike: dict[Wanted, list[int]] = defaultdict(list)
    for place, entry in enumerate(entries):
        alike[wanted.lacking(Known.of(entry))].append(place)
    told = list(entries)
    for missing, places in alike.items():
        if missing:
            said = _ask(predictor, [pictures[place] for place in places], missing)
            for place, more in zip(places, said, strict=True):
                told[place] = _with(entries[place], more)
    return told


def _ask(predictor: Predictor, pictures: Sequence[Picture], wanted: Wanted) -> list[dict[str, Any]]:
    """Fields of an entry for each picture."""
    seen = encode(predictor.network, pictures)
    found: list[dict[str, Any]] = [{"model": wanted.model} for _ in seen]
    for language in wanted.languages:
        for one, caption in zip(found, predictor.caption(seen, lang=language), strict=True):
            one["captions"] = {**one.get("captions", {}), language: without_places(caption.text)[0]}
    if wanted.text:
        for one, reading in zip(found, predictor.ocr(seen), strict=True):
            one["text"] = reading.text
    if wanted.classes:
        for one, detections in zip(found, predictor.detect(seen, wanted.classes, min_score=wanted.min_score), strict=True):
            one |= {"classes": wanted.classes, "objects": detections.boxes}
    return found


def _with(entry: Entry, more: dict[str, Any]) -> Entry:
    if entry.model != more["model"]:
        entry = dataclasses.replace(entry, captions=None, text=None, classes=None, objects=None)
    if "captions" in more:
        more = more | {"captions": {**(entry.captions or {}), **more["captions"]}}
    if "classes" in more:
        more = more | {name: (*(getattr(entry, name) or ()), *more[name]) for name in ("classes", "objects")}
    return dataclasses.replace(entry, **more)
