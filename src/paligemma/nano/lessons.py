"""A scene -> prompts and the texts a PaliGemma should answer with. Wording and formats come from `paligemma.tasks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..config import MASK_CODES
from ..tasks import answer, caption, describe_box, detect, ocr, segment
from .names import LANGUAGES, Thing, enumerate_names, plural, things, with_article
from .pointing import Mention
from .world import SIZE, Placed, Scene

RELATIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
"""Phrase -> (axis, sign): "a is left of b" where sign * (b - a) > 0 along the axis."""
CLEAR = 8.0
"""Pixels two centres must differ by before a question compares them, in a picture of SIZE."""


@dataclass(frozen=True)
class Lesson:
    """One prompt and its answer; `kind` groups lessons for scoring (task, and for questions the sort of question)."""

    kind: str
    prefix: str
    suffix: str
    asked: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()
    """Indices into the scene's objects that detect and segment should return, in order."""
    mentions: tuple[Mention, ...] = ()
    """Names in the prefix, for the training aid of that name."""


def label(spot: Placed) -> str:
    return things()[spot.thing].label


def bins(spot: Placed) -> detect.Bins:
    """Its box as location bins: y0, x0, y1, x1."""
    return detect.box_bins(*shares(spot))


def shares(spot: Placed) -> tuple[float, float, float, float]:
    """y0, x0, y1, x1 as shares of the picture's sides."""
    return spot.y0 / spot.side, spot.x0 / spot.side, spot.y1 / spot.side, spot.x1 / spot.side


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of lessons, short ones first. What is left asks for the name of a box's content, or with print for a thing's
    presence.

    A scene that cannot be asked something (a relation, with one thing in sight) is asked something simpler instead.
    """

    caption: float = 0.5
    count: float = 0.18
    presence: float = 0.08
    relation: float = 0.1
    colour: float = 0.07
    side: float = 0.0
    place: float = 0.0
    first_word: float = 0.4
    word_count: float = 0.4
    detect: float = 0.55
    """Of the long lessons about things; the others are `segment`."""


class Teacher:
    """Makes lessons from scenes. `codes` gives the 16 mask codes of a sprite view in the bank: (things, views, 16)."""

    def __init__(self, codes: np.ndarray | None = None, mix: Mix | None = None):
        self.mix = mix or Mix()
        self.codes: list[list[list[int]]] | None = None if codes is None else codes.tolist()

    def long(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """A lesson with a long answer: boxes, masks or printed text."""
        if scene.lines:
            return self.ocr(scene)
        return self.detect(scene, rng) if not scene.objects or rng.random() < self.mix.detect else self.segment(scene, rng)

    def short(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """A lesson with a short answer: a caption, a question, the name of what is in a box."""
        if scene.lines:
            return self.text_question(scene, rng)
        m = self.mix
        match _pick(rng, m.caption, m.count, m.presence, m.relation, m.colour, m.side, m.place):
            case 0:
                return self.caption(scene, LANGUAGES[int(rng.integers(len(LANGUAGES)))])
            case 1:
                return self.count(scene, rng)
            case 2:
                return self.presence(scene, rng)
            case 3:
                return self.relation(scene, rng)
            case 4:
                return self.colour(scene, rng)
            case 5:
                return self.side(scene, rng)
            case 6:
                return self.place(scene, rng)
            case _:
                return self.describe_box(scene, rng)

    def caption(self, scene: Scene, lang: str) -> Lesson:
        names = [things()[spot.thing].names[lang] for spot in scene.objects]
        return Lesson(f"caption {lang}", caption.prompt(lang), enumerate_names(names, lang))

    def count(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """How many of one noun (absent, present, or the most frequent one), or of everything."""
        nouns = [things()[spot.thing].noun for spot in scene.objects]
        kind = rng.random()
        if kind < 0.2 or not nouns:
            return self._question("count", "how many objects are there?", str(len(nouns)))
        if kind < 0.4:
            noun = _absent(rng, nouns, [t.noun for t in things()])
        elif kind < 0.75:
            noun = max(nouns, key=nouns.count)
        else:
            noun = nouns[int(rng.integers(len(nouns)))]
        spots = [spot for spot, found in zip(scene.objects, nouns, strict=True) if found == noun]
        return self._question("count", f"how many {plural(noun)} are there?", str(len(spots)), (plural(noun), spots))

    def presence(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """Is something there, by its full name ("red heart") or by its noun? Yes and no are equally frequent."""
        name_of: Callable[[Thing], str] = (lambda thing: thing.label) if rng.random() < 0.7 else (lambda thing: thing.noun)
        here = [name_of(things()[spot.thing]) for spot in scene.objects]
        truth = bool(here) and rng.random() < 0.5
        name = here[int(rng.integers(len(here)))] if truth else _absent(rng, here, [name_of(thing) for thing in things()])
        spots = [spot for spot, found in zip(scene.objects, here, strict=True) if found == name]
        verb = "are" if with_article(name) == name else "is"
        return self._question("presence", f"{verb} there {with_article(name)}?", "yes" if truth else "no", (name, spots))

    def relation(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """Is one thing left of, right of, above or below another? Yes and no are equally frequent."""
        phrases = list(RELATIONS)
        phrase = phrases[int(rng.integers(4))]
        axis, sign = RELATIONS[phrase]
        unique = _one_of_a_kind(scene)
        pairs = [(a, b) for a in unique for b in unique if sign * (b.centre[axis] - a.centre[axis]) >= CLEAR * scene.side / SIZE]
        if not pairs:
            return self.presence(scene, rng)
        a, b = pairs[int(rng.integers(len(pairs)))]
        truth = bool(rng.random() < 0.5)
        if not truth:
            a, b = b, a
        question = f"is the {label(a)} {phrase} the {label(b)}?"
        return self._question("relation", question, "yes" if truth else "no", (label(a), [a]), (label(b), [b]))

    def side(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """On which side of one thing is another? Easier to learn than `relation`, whose yes and no also depend on the phrase."""
        axis = int(rng.integers(2))
        unique = _one_of_a_kind(scene)
        pairs = [(a, b) for a in unique for b in unique if abs(b.centre[axis] - a.centre[axis]) >= CLEAR * scene.side / SIZE]
        if not pairs:
            return self.presence(scene, rng)
        a, b = pairs[int(rng.integers(len(pairs)))]
        first, second, rest = (("left", "right", " of"), ("above", "below", ""))[axis]
        reply = first if a.centre[axis] < b.centre[axis] else second
        question = f"is the {label(a)} {first} or {second}{rest} the {label(b)}?"
        return self._question("side", question, reply, (label(a), [a]), (label(b), [b]))

    def place(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """Where one thing is: in which ninth of the picture its centre lies."""
        unique = _one_of_a_kind(scene)
        if not unique:
            return self.presence(scene, rng)
        spot = unique[int(rng.integers(len(unique)))]
        column, row = (min(2, int(3 * c / scene.side)) for c in spot.centre)
        words = [("top", "", "bottom")[row], ("left", "", "right")[column]]
        return self._question("place", f"where is the {label(spot)}?", " ".join(filter(None, words)) or "middle", (label(spot), [spot]))

    def colour(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        found = [things()[spot.thing] for spot in scene.objects]
        nouns = [thing.noun for thing in found]
        options = [i for i, thing in enumerate(found) if thing.colour and nouns.count(thing.noun) == 1]
        if not options:
            return self.count(scene, rng)
        index = options[int(rng.integers(len(options)))]
        thing = found[index]
        return self._question("colour", f"what color is the {thing.noun}?", str(thing.colour), (thing.noun, [scene.objects[index]]))

    def describe_box(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        if not scene.objects:
            return self.presence(scene, rng)
        spot = scene.objects[int(rng.integers(len(scene.objects)))]
        return Lesson("describe_box", describe_box.prompt(shares(spot)), enumerate_names([label(spot)], "en"))

    def text_question(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        match _pick(rng, self.mix.first_word, self.mix.word_count):
            case 0:
                return self._question("word", "what is the first word?", scene.lines[0].text)
            case 1:
                return self._question("count", "how many words are there?", str(len(scene.lines)))
            case _:
                return self.presence(scene, rng)

    def ocr(self, scene: Scene) -> Lesson:
        return Lesson("ocr", ocr.prompt(), "\n".join(line.text for line in scene.lines))

    def detect(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """Some of the present classes and, in 4 of 10 prompts, an absent one, 1 of 10 nothing else; boxes from left to right."""
        present = list(dict.fromkeys(label(spot) for spot in scene.objects))
        keep = int(rng.integers(1, len(present) + 1)) if present and rng.random() < 0.5 else len(present)
        asked = [present[i] for i in rng.permutation(len(present))[:keep]]
        chance = rng.random()
        if not asked or chance < 0.1:
            asked = []
        if not asked or (chance < 0.4 and len(asked) < 4):
            asked.insert(int(rng.integers(len(asked) + 1)), _absent(rng, present, [t.label for t in things()]))
        targets = tuple(i for i, spot in enumerate(scene.objects) if label(spot) in asked)
        suffix = detect.target((label(scene.objects[i]), bins(scene.objects[i])) for i in targets)
        prefix = detect.prompt(asked)
        named = [(name, [spot for spot in scene.objects if label(spot) == name]) for name in asked]
        return Lesson("detect", prefix, suffix, tuple(asked), targets, mentions(prefix, *named))

    def segment(self, scene: Scene, rng: np.random.Generator) -> Lesson:
        """One thing by name, or by side where there are several of it; now and then two things, or both of a kind."""
        labels = [label(spot) for spot in scene.objects]
        first = int(rng.integers(len(labels)))
        twins = tuple(i for i, name in enumerate(labels) if name == labels[first])
        if len(twins) == 2 and rng.random() < 0.3:
            return self._segment(scene, [(labels[i], i) for i in twins])
        phrase, target = self._refer(scene, first, rng)
        picked = [(phrase, target)]
        others = [i for i, name in enumerate(labels) if labels.count(name) == 1 and i != target]
        if labels.count(labels[target]) == 1 and others and rng.random() < 0.15:
            second = others[int(rng.integers(len(others)))]
            picked.append((labels[second], second))
        return self._segment(scene, picked)

    def _segment(self, scene: Scene, picked: list[tuple[str, int]]) -> Lesson:
        """Names and indices of objects, in the order of asking."""
        asked = tuple(dict.fromkeys(name for name, _ in picked))
        picked = sorted(picked, key=lambda item: item[1])
        spots = [(name, scene.objects[i]) for name, i in picked]
        suffix = segment.target((name, bins(spot), self._codes(spot)) for name, spot in spots)
        prefix = segment.prompt(asked)
        named = [(phrase, [spot for name, spot in spots if name == phrase]) for phrase in asked]
        return Lesson("segment", prefix, suffix, asked, tuple(i for _, i in picked), mentions(prefix, *named))

    def _refer(self, scene: Scene, index: int, rng: np.random.Generator) -> tuple[str, int]:
        """A phrase that means exactly one object: its label, or its label and side."""
        name = label(scene.objects[index])
        same = [i for i, spot in enumerate(scene.objects) if label(spot) == name]
        if len(same) == 1:
            return name, index
        side, pick = (("left", same[0]), ("right", same[-1]))[int(rng.integers(2))]
        return f"{name} on the {side}", pick

    def _codes(self, spot: Placed) -> list[int]:
        if self.codes is None or spot.view is None:
            return [0] * MASK_CODES  # evaluation compares masks, not codes
        return self.codes[spot.thing][spot.view]

    @staticmethod
    def _question(kind: str, question: str, reply: str, *named: tuple[str, list[Placed]]) -> Lesson:
        prefix = answer.prompt(question)
        return Lesson(kind, prefix, reply, mentions=mentions(prefix, *named))


def mentions(prefix: str, *named: tuple[str, list[Placed]]) -> tuple[Mention, ...]:
    """Where the names stand in `prefix`, one after the other, each with the things it means."""
    found, end = [], 0
    for name, spots in named:
        end = prefix.index(f" {name}", end) + 1 + len(name)
        found.append(Mention(end, bool(spots), shares(spots[0]) if len(spots) == 1 else None))
    return tuple(found)


def _one_of_a_kind(scene: Scene) -> list[Placed]:
    """What can be meant by its name alone."""
    labels = [label(spot) for spot in scene.objects]
    return [spot for spot in scene.objects if labels.count(label(spot)) == 1]


def _pick(rng: np.random.Generator, *shares: float) -> int:
    """Which of the shares a random number falls into; their count where it falls behind all of them."""
    return int(np.searchsorted(np.cumsum(shares), rng.random(), side="right"))


def _absent(rng: np.random.Generator, present: list[str], everything: list[str]) -> str:
    others = [name for name in dict.fromkeys(everything) if name not in present]
    return others[int(rng.integers(len(others)))]
