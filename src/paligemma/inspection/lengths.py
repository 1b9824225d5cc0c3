"""How many tokens each record has, what it is asked, and which texts lose their end. All records; needs the tokenizer, no pictures."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..config import MASK_CODES
from ..data.lessons import MOST_CLASSES, Lesson, lesson
from ..errors import InputError, PaliGemmaError
from ..sequence import training_example
from ..tasks.detect import tidy
from ..tokenizer import Tokenizer
from .counts import Tally
from .items import Item

Fate = Literal["whole", "cut", "no room"]
"""Of a text: it fits; its answer loses its end; its prompt leaves no room for an answer, and the record is left out of the run."""

BARS = 30
LISTED = 50
"""Records that do not fit are named up to here; all are counted."""
_ENDLESS = 2**31
_SIZE = (1024, 1024)
"""Of a picture. Places differ with it, the number of tokens does not."""


@dataclass(frozen=True)
class Over:
    """A record that does not fit. `prompt`: tokens of it that are prompt."""

    number: int
    id: str
    where: str
    tokens: int
    prompt: int
    fate: Fate


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompt and answer together, begin, separator and end counted; of records with several answers the longest counts.

    `limit`: what fits; `histogram`: (from, to, records), both ends included; `over`: the first `LISTED` that do not fit; `unwritten`: how
    many records there are of which no text can be made, `reasons`: where the first of them are, and why. A prompt that names
    some of the classes, others each time, is measured with the longest names that may come.
    """

    limit: int
    median: float = 0.0
    p95: int = 0
    longest: int = 0
    longest_where: str = ""
    histogram: tuple[tuple[int, int, int], ...] = ()
    cut: int = 0
    no_room: int = 0
    over: tuple[Over, ...] = ()
    unwritten: int = 0
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Texts:
    """What one pass over all texts finds."""

    lengths: Lengths
    prompts: Tally


def read_texts(items: Sequence[Item], tokenizer: Tokenizer, limit: int, tell: Callable[[int], None] = lambda done: None) -> Texts:
    """`limit`: tokens an example may have. `tell` hears how many records are done."""
    tokens, prompts, over, unwritten = np.zeros(len(items), int), Counter[str](), [], []
    fates = Counter[Fate]()
    by_length = _ByLength(tokenizer)
    for place, item in enumerate(items):
        try:
            lessons = list(_lessons(item, by_length))
            prompts[_asked(item, lessons[0])] += 1
            measured = max(_measure(tokenizer, one, limit) for one in lessons)
        except PaliGemmaError as error:  # a task refuses its words, the tokenizer its characters
            unwritten.append((item.record.where, error.message))
            continue
        tokens[place], prompt, fate = measured
        fates[fate] += 1
        if fate != "whole" and len(over) < LISTED:
            over.append(Over(item.number, item.record.id, item.record.where, measured[0], prompt, fate))
        tell(place + 1)
    known = tokens[tokens > 0]
    lengths = Lengths(limit, unwritten=len(unwritten), reasons=tuple(unwritten[:LISTED]))
    if known.size:
        lengths = replace(
            lengths, median=float(np.median(known)), p95=int(np.percentile(known, 95, method="inverted_cdf")), longest=int(known.max()),
            longest_where=items[int(tokens.argmax())].record.where, histogram=histogram(known), cut=fates["cut"],
            no_room=fates["no room"], over=tuple(over),
        )  # fmt: skip
    return Texts(lengths, Tally.of(prompts))


def histogram(values: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """(from, to, how many) of whole numbers, in at most `BARS` bars of one width."""
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // BARS)
    counts = np.bincount((values - low) // width)
    return tuple((low + i * width, low + i * width + width - 1, int(count)) for i, count in enumerate(counts))


def _measure(tokenizer: Tokenizer, text: Lesson, limit: int) -> tuple[int, int, Fate]:
    """Tokens of the whole text, of its prompt, and what becomes of it."""
    whole = training_example(tokenizer, text.prefix, text.suffix, _ENDLESS)
    tokens, prompt = len(whole.ids), whole.mask_loss.index(1)
    if tokens <= limit:
        return tokens, prompt, "whole"
    try:
        training_example(tokenizer, text.prefix, text.suffix, limit)
    except InputError:
        return tokens, prompt, "no room"
    return tokens, prompt, "cut"


def _lessons(item: Item, by_length: _ByLength) -> Iterator[Lesson]:
    """A text for each answer that may be drawn. Masks are not drawn: each is 16 tokens, whatever it covers."""
    record = item.record
    if record.in_places:
        things = tuple(replace(thing, outline=_Blank()) for thing in record.things)
        record = replace(record, things=things)
        classes = by_length.worst(item) if item.names_are_drawn else item.classes
        yield lesson(record, _SIZE, classes=classes, codes=lambda mask: (0,) * MASK_CODES, rng=item.rng())
    else:
        for answer in dict.fromkeys(record.answers):
            yield lesson(replace(record, answers=(answer,)), _SIZE)


class _ByLength:
    """Names of classes, those of most tokens first."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.classes: tuple[str, ...] | None = None
        self.names: list[str] = []

    def worst(self, item: Item) -> tuple[str, ...]:
        """The names of the longest prompt that may be drawn: those that are there, and the longest of the others."""
        if item.classes is not self.classes:
            self.names = sorted(dict.fromkeys(map(tidy, item.classes)), key=lambda name: -len(self.tokenizer.encode(name)))
            self.classes = item.classes
        there = {tidy(thing.label) for thing in item.record.things}
        absent = (name for name in self.names if name not in there)
        chosen = there | set(itertools.islice(absent, max(MOST_CLASSES - len(there), 0)))
        return tuple(name for name in dict.fromkeys(map(tidy, item.classes)) if name in chosen)


class _Blank:
    """An outline that covers nothing."""

    def mask(self, width: int, height: int) -> np.ndarray:
        return np.zeros((1, 1), bool)


def _asked(item: Item, text: Lesson) -> str:
    if item.names_are_drawn:
        return f"{item.record.task} ({MOST_CLASSES} of {len(item.classes)} names, others each time)"
    return text.prefix
