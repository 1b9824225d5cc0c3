"""`detect {a} ; {b}` -> boxes, written `<y0><x0><y1><x1> label ; ...`. The one home of location tokens: y before x, 1024 bins.

A coordinate is a share v of the picture's height or width: bin = clip(round(1023 v), 0, 1023), v = bin / 1023 (big_vision
`pp/proj/paligemma/segmentation.py`, `evaluators/.../segmentation.py`). The public demo divides by 1024; the reference is followed here.
The parser also reads the 16 mask codes that may follow a box (see `segment`), and takes any text at all without an error.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ..config import MASK_CODES, NUM_LOC, NUM_SEG
from ..errors import UsageError
from ..results import Box, Detections
from .wording import words

name = "detect"
result = Detections
max_tokens = 1024

SEMICOLON = ";"
"""What ends an object's label, wherever it stands."""
SEPARATOR = f" {SEMICOLON} "
MAX_OBJECTS = 256
"""No answer is taken for more objects than this."""

Bins = tuple[int, int, int, int]
"""y0, x0, y1, x1, each 0 to 1023."""


def to_bin(share: float) -> int:
    return min(max(round(share * (NUM_LOC - 1)), 0), NUM_LOC - 1)


def from_bin(bin: int) -> float:
    return bin / (NUM_LOC - 1)


def box_bins(y0: float, x0: float, y1: float, x1: float) -> Bins:
    """Shares of height and width -> bins. A box thinner than a bin gets one, since a box without extent is no valid answer."""
    top, bottom = _apart(to_bin(y0), to_bin(y1))
    left, right = _apart(to_bin(x0), to_bin(x1))
    return top, left, bottom, right


def box_tokens(y0: float, x0: float, y1: float, x1: float) -> str:
    """Shares of height and width -> `<loc....>` four times."""
    return loc_tokens(box_bins(y0, x0, y1, x1))


def loc_tokens(bins: Sequence[int]) -> str:
    return "".join(f"<loc{bin:04d}>" for bin in bins)


def pixel_bins(box: Box, width: float, height: float) -> Bins:
    """A box in pixels of a width x height picture -> bins."""
    return box_bins(box.y0 / height, box.x0 / width, box.y1 / height, box.x1 / width)


@dataclass(frozen=True)
class Found:
    """One object of an answer. `codes`: 16 mask codes or None.

    `start` to `end`: where it stands, in characters of the text or in positions of the ids, whichever was parsed, with its label and
    without the separator; the label begins at `label_start`. They take no part in ==.
    """

    label: str
    bins: Bins
    codes: tuple[int, ...] | None = None
    start: int = field(default=0, compare=False)
    label_start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)

    def box(self, width: float, height: float, score: float | None = None) -> Box:
        """In pixels of a width x height picture."""
        y0, x0, y1, x1 = map(from_bin, self.bins)
        return Box(self.label, x0 * width, y0 * height, x1 * width, y1 * height, score)


@dataclass(frozen=True)
class Parsed:
    """`leftover`: text that belongs to no object. `invalid`: boxes left out, because they lack tokens or extent."""

    objects: tuple[Found, ...]
    leftover: str = ""
    invalid: int = 0


def prompt(classes: str | Sequence[str]) -> str:
    """`classes`: names, or one string with ";" between them. Raises `UsageError` if there is none or one cannot be written."""
    return f"detect {SEPARATOR.join(class_names(classes))}"


def class_names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Names without surplus blanks and duplicates. Raises `UsageError` if there is none or one cannot be written."""
    if not isinstance(classes, Iterable):
        raise UsageError(f"the names to look for must be text or a list of texts, found {type(classes).__name__}")
    given = classes.split(SEMICOLON) if isinstance(classes, str) else (words(name, "a name to look for", empty=True) for name in classes)
    names = dict.fromkeys(filter(None, map(tidy, given)))
    if not names:
        raise UsageError("no name says what to look for", hint="for example: 'cat ; dog'")
    for label in names:
        check_label(label)
    return tuple(names)


def check_label(label: str) -> str:
    """`label` itself; `UsageError` if it holds what separates objects."""
    if SEMICOLON in label or _TOKEN.search(label):
        raise UsageError(f"the name {label!r} holds a ';' or a location token, which separate objects", hint="give several names as a list")
    return label


def tidy(label: str) -> str:
    """One blank between words, none around."""
    return " ".join(label.split())


def target(objects: Iterable[tuple[str, Bins]], classes: Sequence[str] | None = None) -> str:
    """(label, bins) each -> training text, "" for none. With `classes`, grouped in their order; else in the order given."""
    ordered = sort_by_class(objects, classes, lambda item: item[0])
    return SEPARATOR.join(f"{loc_tokens(bins)} {check_label(tidy(label))}" for label, bins in ordered)


def sort_by_class(items, classes: Sequence[str] | None, label_of) -> list:
    """Stable; labels that are not among the classes come last."""
    if classes is None:
        return list(items)
    order: Mapping[str, int] = {label: i for i, label in enumerate(classes)}
    return sorted(items, key=lambda item: order.get(label_of(item), len(order)))


def parse(text: str, classes: Sequence[str] | None = None) -> Parsed:
    """Any text -> its objects. With `classes`, only those whose label is one of them, whatever the case of its letters."""
    return restrict(_assemble(_text_units(text)), classes)


class Vocabulary(Protocol):
    """What of the tokenizer is needed to read ids."""

    loc: range
    seg: range

    def decode(self, ids: Sequence[int]) -> str: ...


def parse_ids(ids: Sequence[int], tokenizer: Vocabulary, classes: Sequence[str] | None = None) -> Parsed:
    """As `parse`, from token ids: `start`, `label_start` and `end` are positions in `ids`, so that tokens' probabilities can be attached.

    Only real location tokens count, not text that happens to spell one.
    """
    return restrict(_assemble(_id_units(ids, tokenizer)), classes)


def restrict(parsed: Parsed, classes: Sequence[str] | None) -> Parsed:
    """Only objects of the asked classes, spelled as asked; the others become leftover. Without labels and with one class, they are its."""
    if classes is None:
        return parsed
    asked = {tidy(label).casefold(): label for label in reversed(classes)}
    if len(asked) == 1:
        asked[""] = classes[0]
    kept = [dataclasses.replace(o, label=asked[o.label.casefold()]) for o in parsed.objects if o.label.casefold() in asked]
    strange = [f"{loc_tokens(o.bins)} {o.label}" for o in parsed.objects if o.label.casefold() not in asked]
    return Parsed(tuple(kept), " ".join(filter(None, [parsed.leftover, *strange])), parsed.invalid)


# Reading: text or ids -> units -> objects


@dataclass(frozen=True)
class _Unit:
    """A location, a code, a separator, or text between them. `raw` is how it is written."""

    kind: Literal["loc", "seg", "separator", "text"]
    raw: str
    value: int
    start: int
    end: int


_TOKEN = re.compile(r"<loc(\d{4})>|<seg(\d{3})>", re.ASCII)


def _text_units(text: str) -> Iterator[_Unit]:
    """`start` and `end` are characters."""
    last = 0
    for match in _TOKEN.finditer(text):
        loc, seg = match.groups()
        kind, value, count = ("loc", int(loc), NUM_LOC) if loc else ("seg", int(seg), NUM_SEG)
        if value >= count:
            continue
        yield from _plain_units(text[last : match.start()], last)
        yield _Unit(kind, match[0], value, match.start(), match.end())
        last = match.end()
    yield from _plain_units(text[last:], last)


def _plain_units(text: str, offset: int) -> Iterator[_Unit]:
    """Text between separators. Surrounding blanks do not count as places of it."""
    for match in re.finditer(f"{SEMICOLON}|[^{SEMICOLON}]+", text):
        kind = "separator" if match[0] == SEMICOLON else "text"
        blank = len(match[0]) - len(match[0].lstrip())
        yield _Unit(kind, match[0], 0, offset + match.start() + blank, offset + match.start() + len(match[0].rstrip() or match[0]))


def _id_units(ids: Sequence[int], tokenizer: Vocabulary) -> Iterator[_Unit]:
    """`start` and `end` are positions in `ids`."""
    place = 0
    while place < len(ids):
        id, start = ids[place], place
        if id in tokenizer.loc:
            yield _Unit("loc", tokenizer.decode([id]), id - tokenizer.loc.start, place, place + 1)
        elif id in tokenizer.seg:
            yield _Unit("seg", tokenizer.decode([id]), id - tokenizer.seg.start, place, place + 1)
        elif SEMICOLON in tokenizer.decode([id]):
            # The piece may hold more than the separator.
            for unit in _plain_units(tokenizer.decode([id]), 0):
                yield dataclasses.replace(unit, start=place, end=place + 1)
        else:
            while place + 1 < len(ids) and _is_label(ids[place + 1], tokenizer):
                place += 1
            yield _Unit("text", tokenizer.decode(ids[start : place + 1]), 0, start, place + 1)
        place += 1


def _is_label(id: int, tokenizer: Vocabulary) -> bool:
    return id not in tokenizer.loc and id not in tokenizer.seg and SEMICOLON not in tokenizer.decode([id])


def _assemble(units: Iterator[_Unit]) -> Parsed:
    """Four locations begin an object; 16 codes and a label may follow; a separator ends it."""
    rest = [unit for unit in units if unit.kind != "text" or unit.raw.strip()]
    rest.reverse()
    objects: list[Found] = []
    leftover: list[str] = []
    invalid = 0

    def take(kind: str, most: int) -> list[_Unit]:
        taken: list[_Unit] = []
        while rest and rest[-1].kind == kind and len(taken) < most:
            taken.append(rest.pop())
        return taken

    while rest and len(objects) < MAX_OBJECTS:
        locs = take("loc", 4)
        if not locs:
            unit = rest.pop()
            if unit.kind != "separator":
                leftover.append(unit.raw)
            continue
        if len(locs) < 4:
            invalid += 1
            leftover += [unit.raw for unit in locs]
            continue
        segs = take("seg", len(rest))
        words = take("text", len(rest))
        take("separator", 1)
        y0, x0, y1, x1 = (unit.value for unit in locs)
        codes = tuple(unit.value for unit in segs[:MASK_CODES]) if len(segs) >= MASK_CODES else None
        if y1 <= y0 or x1 <= x0:
            invalid += 1
            leftover += [unit.raw for unit in (*locs, *segs, *words)]
            continue
        leftover += [unit.raw for unit in (segs[MASK_CODES:] if codes else segs)]
        bare_end = (segs or locs)[-1].end
        label_start, end = (words[0].start, words[-1].end) if words else (bare_end, bare_end)
        label = tidy("".join(unit.raw for unit in words))
        objects.append(Found(label, (y0, x0, y1, x1), codes, locs[0].start, label_start, end))
    leftover += [unit.raw for unit in reversed(rest)]
    return Parsed(tuple(objects), tidy(" ".join(leftover)), invalid)


def _apart(low: int, high: int) -> tuple[int, int]:
    if high > low:
        return low, high
    return (low, low + 1) if low < NUM_LOC - 1 else (low - 1, low)
