"""Stand-ins for a predictor in the small world: one that knows the scenes it is shown, and one that never looks."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL.Image import Image

from paligemma.nano.lessons import Teacher
from paligemma.nano.names import enumerate_names, plural, things
from paligemma.nano.scenes import corners
from paligemma.nano.world import SIZE, Placed, Scene
from paligemma.results import Answer, Box, Caption, Detections, Mask, Masks, Reading, Text

COMPARE = {
    "left of": lambda a, b: a.centre[0] < b.centre[0],
    "right of": lambda a, b: a.centre[0] > b.centre[0],
    "above": lambda a, b: a.centre[1] < b.centre[1],
    "below": lambda a, b: a.centre[1] > b.centre[1],
}


def label(spot: Placed) -> str:
    return things()[spot.thing].names["en"]


def reply(scene: Scene, question: str) -> str:
    """The true answer to any question of the small world."""
    spots = {label(spot): spot for spot in scene.objects}
    found = [things()[spot.thing] for spot in scene.objects]
    if question == "what is the first word?":
        return scene.lines[0].text
    if match := re.fullmatch(r"how many (.+) are there\?", question):
        whole = {"objects": len(found), "words": len(scene.lines)}
        return str(whole.get(match[1], sum(plural(thing.noun) == match[1] for thing in found)))
    if match := re.fullmatch(r"(?:is there an? |are there )(.+)\?", question):
        return "yes" if match[1] in spots or match[1] in {thing.noun for thing in found} else "no"
    if match := re.fullmatch(r"what color is the (.+)\?", question):
        return next(str(thing.colour) for thing in found if thing.noun == match[1])
    if match := re.fullmatch(r"is the (.+) (left|above) or (right|below)(?: of)? the (.+)\?", question):
        compare = COMPARE[{"left": "left of"}.get(match[2], match[2])]
        return match[2] if compare(spots[match[1]], spots[match[4]]) else match[3]
    if match := re.fullmatch(r"where is the (.+)\?", question):
        x, y = (3 * coordinate / SIZE for coordinate in spots[match[1]].centre)
        words = ("top" if y < 1 else "bottom" if y >= 2 else "", "left" if x < 1 else "right" if x >= 2 else "")
        return " ".join(filter(None, words)) or "middle"
    match = re.fullmatch(r"is the (.+) (left of|right of|above|below) the (.+)\?", question)
    assert match, f"nobody asks {question!r}"
    return "yes" if COMPARE[match[2]](spots[match[1]], spots[match[3]]) else "no"


def referred(scene: Scene, phrase: str) -> int:
    """The one object a phrase means."""
    name, _, side = phrase.partition(" on the ")
    same = [index for index, spot in enumerate(scene.objects) if label(spot) == name]
    return same[-1] if side == "right" else same[0]


def name_of(picture: Any) -> str:
    """What a picture is recognised by, be it a PIL image or an array."""
    return hashlib.sha1(np.asarray(picture).tobytes()).hexdigest()


class Whole:
    """A mask codec that loses nothing but what a 64 x 64 mask cannot hold: its codes are the mask."""

    def encode(self, masks):
        return masks

    def decode(self, codes):
        return 2 * codes - 1


class StandIn:
    """A verb is asked about a picture, or about several with one argument for all or one each: both is `_verb(name, argument)`."""

    codec = Whole()
    calibration: Any = None
    config = SimpleNamespace(vision=SimpleNamespace(image_size=SIZE))

    def with_calibration(self, calibration: Any) -> StandIn:
        other = copy.copy(self)
        other.calibration = calibration
        return other

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        """Verb, picture and argument of every question so far."""

    def encode(self, image: Image) -> Image:
        return image

    def caption(self, image, lang="en"):
        return self._each(self._caption, image, lang)

    def ask(self, image, question):
        return self._each(self._ask, image, question)

    def run(self, image, prompt):
        return self._each(self._run, image, prompt)

    def detect(self, image, classes):
        return self._each(self._detect, image, classes)

    def segment(self, image, classes):
        return self._each(self._segment, image, classes)

    def describe_box(self, image, box):
        return self._each(self._describe_box, image, box)

    def ocr(self, image):
        return self._each(self._ocr, image, None)

    def _each(self, verb: Callable[[str, Any], Any], image: Any, argument: Any) -> Any:
        if not isinstance(image, list):
            self.asked.append((verb.__name__.removeprefix("_"), name_of(image), argument))
            return verb(name_of(image), argument)
        arguments = argument if isinstance(argument, list) else [argument] * len(image)
        return [self._each(verb, one, this) for one, this in zip(image, arguments, strict=True)]


class Knowing(StandIn):
    """Says what is true of the scenes it was told of. `sure`: the score of its boxes."""

    def __init__(self, scenes: Iterable[Scene], sure: float = 0.9):
        super().__init__()
        self.scenes = {name_of(scene.pixels): scene for scene in scenes}
        self.sure = sure

    def _caption(self, picture: str, lang: str) -> Caption:
        return Caption(Teacher().caption(self.scenes[picture], lang).suffix)

    def _ask(self, picture: str, question: str) -> Answer:
        return Answer(reply(self.scenes[picture], question))

    def _run(self, picture: str, prompt: str) -> Text:
        return Text(reply(self.scenes[picture], prompt.removeprefix("answer en ")))

    def _detect(self, picture: str, classes: Sequence[str]) -> Detections:
        boxes = (Box(label(spot), *corners(spot), self.sure) for spot in self.scenes[picture].objects)
        return Detections(tuple(box for box in boxes if box.label in classes), SIZE, SIZE)

    def _segment(self, picture: str, classes: Sequence[str]) -> Masks:
        scene = self.scenes[picture]
        found = [(phrase, referred(scene, phrase)) for phrase in classes]
        masks = (Mask(phrase, Box(phrase, *corners(scene.objects[index])), scene.mask(index), self.sure) for phrase, index in found)
        return Masks(tuple(masks), SIZE, SIZE)

    def _describe_box(self, picture: str, box: Sequence[float]) -> Caption:
        names = [label(spot) for spot in self.scenes[picture].objects if corners(spot) == list(box)]
        return Caption(enumerate_names(names, "en"))

    def _ocr(self, picture: str, _: None) -> Reading:
        return Reading("\n".join(line.text for line in self.scenes[picture].lines))


class Blind(StandIn):
    """Says `words` to everything and points at `mask`, or at nothing."""

    def __init__(self, words: str, mask: np.ndarray | None = None):
        super().__init__()
        self.words = words
        self.masks = () if mask is None else (Mask("", Box("", 0, 0, SIZE, SIZE), mask, 0.5),)

    def _caption(self, picture: str, _: Any) -> Caption:
        return Caption(self.words)

    _ask = _run = _ocr = _describe_box = _caption

    def _detect(self, picture: str, _: Any) -> Detections:
        return Detections(tuple(mask.box for mask in self.masks), SIZE, SIZE)

    def _segment(self, picture: str, _: Any) -> Masks:
        return Masks(self.masks, SIZE, SIZE)
