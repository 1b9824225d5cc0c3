"""The bare sentence of RefCOCO checkpoints -> one box and mask without a label: `<loc>x4<seg>x16`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..results import Masks
from . import segment
from .detect import Bins, Parsed, Vocabulary
from .wording import words

name = "refer"
result = Masks
max_tokens = 1024


def prompt(sentence: str) -> str:
    """Raises `UsageError` if it is empty."""
    return words(sentence, "the sentence that says what to outline")


def target(bins: Bins, codes: Sequence[int]) -> str:
    return segment.target([("", bins, codes)])


def parse(text: str, sentence: str = "") -> Parsed:
    """At most one object, the first that is whole; `sentence` becomes its label.

    The reference's evaluator is stricter: it looks at the first 20 tokens of an answer and counts anything else as no mask.
    """
    return _label(segment.parse(text), sentence)


def parse_ids(ids: Sequence[int], tokenizer: Vocabulary, sentence: str = "") -> Parsed:
    """As `parse`, from token ids: see `detect.parse_ids`."""
    return _label(segment.parse_ids(ids, tokenizer), sentence)


def _label(parsed: Parsed, sentence: str) -> Parsed:
    return dataclasses.replace(parsed, objects=tuple(dataclasses.replace(o, label=sentence) for o in parsed.objects[:1]))
