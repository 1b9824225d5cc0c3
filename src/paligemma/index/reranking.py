"""The best few once more, by how likely a PaliGemma finds the words as their caption.

P(picture | words) goes as P(words | picture) P(picture), and nothing is known that makes one picture likelier than another before it is
looked at: so pictures are sorted by P(words | picture). The model reads picture and words together, which vectors made apart cannot; it is
too slow for more than a few.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from ..image import open_image
from ..predictor import Predictor
from ..predictor.likelihood import caption_likelihoods
from ..predictor.pictures import prepare
from ..printable import printable
from .query import Hit

BEST = 50


def rerank(
    predictor: Predictor,
    hits: Sequence[Hit],
    words: str,
    root: Path,
    *,
    best: int = BEST,
    lang: str = "en",
    failed: Callable[[InputError], None] = lambda error: None,
) -> list[Hit]:
    """The first `best` hits in the order of their likelihoods, then the others as they were. Pictures that cannot be opened any more are
    behind those that can; `failed` is told why."""
    seen, pictures, unseen = [], [], []
    for hit in hits[:best]:
        try:
            name = printable(hit.entry.path)
            pictures.append(dataclasses.replace(prepare(predictor.config, open_image(root / hit.entry.path, name=name)), picture=None))
            seen.append(hit)
        except InputError as error:
            failed(error)
            unseen.append(hit)
    likely = caption_likelihoods(predictor, pictures, words, lang=lang) if seen else []
    told = [dataclasses.replace(hit, likelihood=one) for hit, one in zip(seen, likely, strict=True)]
    return [*sorted(told, key=lambda hit: -(hit.likelihood or 0.0)), *unseen, *hits[best:]]
