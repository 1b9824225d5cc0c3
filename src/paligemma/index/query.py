"""What is searched for -> rankings of the index -> one ranking.

    words      vectors that are like the words', and captions and read text in which they stand
    picture    vectors that are like the picture's, or like that of a part of it
    text       read text in which the words stand

Rankings are joined by their ranks (reciprocal rank fusion, Cormack et al. 2009): similarities and BM25 scores have no scale in common, and
neither has one that stays the same from query to query, so sums of them would need weights that are wrong for the next collection.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from ..errors import CheckpointError, UsageError
from ..tasks.wording import words as checked_words
from .encoder import Encoder
from .entries import Entry
from .filters import Has, condition
from .store import Index, Match

DAMPING = 60
"""Of the fusion: how little it matters whether a picture is first or second. The paper's."""
DEPTH = 100
"""Places of each ranking that are looked at, at least."""
MOST = 10_000
LONGEST = 4096
"""Characters of words that are searched for."""


@dataclass(frozen=True)
class Query:
    """At least one of them. `picture`: RGB; `has`, `where` (the store's SQL): only pictures that meet all of these. Raises `UsageError`."""

    words: str | None = None
    picture: Image.Image | None = field(default=None, compare=False)
    text: str | None = None
    has: tuple[Has, ...] = ()
    where: str | None = None

    def __post_init__(self) -> None:
        if self.words is None and self.picture is None and self.text is None and not self.has and not self.where:
            raise UsageError("nothing is searched for", hint='words, a picture, read text or what it has: "two cats"')
        for name in ("words", "text"):
            if (value := getattr(self, name)) is not None:
                if len(checked_words(value, f"the {name}")) > LONGEST:
                    raise UsageError(f"the {name} have {len(value):,} characters, at most {LONGEST:,} are allowed")
                object.__setattr__(self, name, value.strip())


@dataclass(frozen=True)
class Hit:
    """A picture that was found. `score`: what it is sorted by, to be compared within one answer only. `ranks`: its place, from 1, in each
    ranking that it is in. `similarity`: cosine, to the words or else the picture. `probability`: that the words fit, by the encoder.
    `likelihood`: log-probability of the words by a PaliGemma that was asked to sort the best again."""

    entry: Entry
    score: float
    ranks: Mapping[str, int]
    similarity: float | None = None
    probability: float | None = None
    likelihood: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        entry = self.entry
        facts = {"path": entry.path, "width": entry.width, "height": entry.height, "score": self.score, "ranks": dict(self.ranks)}
        facts |= {name: getattr(self, name) for name in ("similarity", "probability", "likelihood")}
        facts |= {"captions": None if entry.captions is None else dict(entry.captions), "text": entry.text, "model": entry.model}
        return facts | {"objects": None if entry.objects is None else [box.to_dict() for box in entry.objects]}


def search(index: Index, query: Query, encoder: Encoder | None, top: int = 20) -> list[Hit]:
    """The best `top` pictures of one version of the index, the best first. `encoder`: see `needs_encoder`.

    Raises `UsageError` for a condition that the store does not understand, `CheckpointError` where the index was made by another encoder.
    """
    if not 1 <= top <= MOST:
        raise UsageError(f"the number of results must be from 1 to {MOST:,}, got {top}")
    rankings = _rankings(index, query, encoder, max(DEPTH, top))
    scores: dict[int, float] = defaultdict(float)
    ranks: dict[int, dict[str, int]] = defaultdict(dict)
    for name, found in rankings.items():
        for rank, match in enumerate(found, 1):
            scores[match.row] += 1 / (DAMPING + rank)
            ranks[match.row][name] = rank
    best = sorted(scores, key=lambda row: -scores[row])[:top]
    alike = {match.row: match.score for name in ("picture", "words") for match in rankings.get(name, ())}
    hits = [Hit(entry, scores[row], ranks[row], alike.get(row)) for row, entry in zip(best, index.entries(best), strict=True)]
    return [_probable(hit, encoder) if query.words is not None and encoder is not None else hit for hit in hits]


def needs_encoder(query: Query) -> bool:
    """Whether vectors are compared."""
    return query.words is not None or query.picture is not None


def check_encoder(index: Index, encoder: Encoder) -> None:
    """Raises `CheckpointError` where the vectors of the index mean nothing to it."""
    if (encoder.name, encoder.dimensions) != (index.facts.encoder, index.facts.dimensions):
        what = f"{index.where}: its vectors were made by {index.facts.encoder}, not by {encoder.name}"
        raise CheckpointError(what, hint="name that one with --encoder, or build the index anew", code="other_encoder")


def part(picture: Image.Image, box: Sequence[float]) -> Image.Image:
    """What a box holds: left, top, right, bottom in pixels. Raises `UsageError` where that is nothing."""
    left, top, right, bottom = (min(max(0.0, edge), float(max(picture.size))) for edge in box)  # a NaN becomes 0
    inside = (math.floor(left), math.floor(top), min(picture.width, math.ceil(right)), min(picture.height, math.ceil(bottom)))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        size = f"{picture.width} x {picture.height}"
        raise UsageError(f"the region {tuple(box)} holds nothing of a picture of {size} pixels", hint="left, top, right, bottom in pixels")
    return picture.crop(inside)


def _rankings(index: Index, query: Query, encoder: Encoder | None, depth: int) -> dict[str, list[Match]]:
    """All at the same time: the store uses one processor for each."""
    limits = condition(query.has, query.where)
    asked: dict[str, Callable[[], list[Match]]] = {}
    if needs_encoder(query):
        assert encoder is not None, "words and pictures need an encoder"
        check_encoder(index, encoder)
        if query.words is not None:
            asked["words"] = partial(index.nearest, encoder.texts([query.words])[0], depth, limits)
            asked["captions"] = partial(index.matching, query.words, "words", depth, limits)
        if query.picture is not None:
            asked["picture"] = partial(index.nearest, encoder.pictures([query.picture])[0], depth, limits)
    if query.text is not None:
        asked["text"] = partial(index.matching, query.text, "text", depth, limits)
    if not asked:
        asked["listed"] = partial(index.listed, depth, limits)
    with ThreadPoolExecutor(len(asked), "paligemma-search") as pool:
        return dict(zip(asked, pool.map(lambda search: search(), asked.values()), strict=True))


def _probable(hit: Hit, encoder: Encoder) -> Hit:
    if hit.similarity is None or "words" not in hit.ranks:
        return hit
    logit = encoder.scale * hit.similarity + encoder.bias
    return Hit(hit.entry, hit.score, hit.ranks, hit.similarity, 1 / (1 + math.exp(-max(min(logit, 700.0), -700.0))))
