"""One number in [0, 1] for each answer, box and mask, made from the probabilities of its tokens.

    text     geometric mean of the token probabilities, end token included
    box      P(a box here) * P(its label) * geometric mean of its four coordinates' probabilities
    mask     box score * geometric mean of its code probabilities

A coordinate's probability is that of any location within `LOC_WINDOW` bins, given that a location comes: a box three pixels off is the same
box. P(a box here) is the probability of going on after the last box (the separator) and of a location rather than the end. A label's
probability is the product over its tokens; with the labels limited to the asked classes it is the probability of the class. A geometric
mean, so that long answers do not score lower for being long. Every factor only lowers the score, so scores are comparable within a task.

They rank well but need not be frequencies. A model's folder may hold a `calibration.json`, `{"box": {"a": 1.3, "b": -0.2}}`, fitted on
held-out pictures: score -> sigmoid(a * logit(score) + b) (Platt scaling), with a > 0, so that the order stays. Without it scores are raw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError
from .options import Generation


def text_score(generation: Generation) -> float:
    """Of a whole answer. An answer cut by length has no end token to count."""
    return math.exp(min(0.0, generation.logprob) / max(1, len(generation.ids) + (generation.stop == "eos")))


@dataclass(frozen=True)
class Span:
    """Four locations in a row, and what belongs to them, as indices into `Generation.ids`.

    `before`: the separator after the last object. `label`: from after the coordinates and codes to the next separator or location.
    """

    before: range
    coords: range
    codes: range
    label: range


def spans(ids: Sequence[int], loc: range, seg: range, separator: Collection[int]) -> Iterator[Span]:
    """The objects in an answer, left to right: every four consecutive locations begin one. Other locations belong to nothing."""
    place, before = 0, range(0)
    while place < len(ids):
        coords = range(place, place + 4)
        if len(ids) < coords.stop or any(ids[i] not in loc for i in coords):
            before = range(0) if ids[place] in loc else before
            place += 1
            continue
        code_end = _run(ids, coords.stop, lambda id: id in seg)
        label_end = _run(ids, code_end, lambda id: id not in loc and id not in separator)
        yield Span(before, coords, range(coords.stop, code_end), range(code_end, label_end))
        place = _run(ids, label_end, lambda id: id not in loc)
        before = range(label_end, place)


def box_score(generation: Generation, span: Span) -> float:
    probs, kinds = generation.probs, generation.kind_probs
    here = math.prod(probs[i] for i in span.before) * kinds[span.coords.start]
    return here * math.prod(probs[i] for i in span.label) * _mean(probs[i] / max(kinds[i], _TINY) for i in span.coords)


def mask_score(generation: Generation, span: Span) -> float:
    return box_score(generation, span) * _mean(generation.probs[i] for i in span.codes)


@dataclass(frozen=True)
class Calibration:
    """Platt parameters (a, b) by kind of score ("box", "mask", "text"); a kind that is absent stays raw."""

    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read `calibration.json`; what is not of its form raises `CheckpointError`."""
        try:
            parameters = {kind: (float(pair["a"]), float(pair["b"])) for kind, pair in json.loads(path.read_text("utf-8")).items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f'{path}: expected {{"box": {{"a": number, "b": number}}, ...}}', hint="delete it for raw scores"
            ) from error
        for kind, (a, b) in parameters.items():
            if not (a > 0 and math.isfinite(a) and math.isfinite(b)):
                raise CheckpointError(f"{path}: {kind!r} needs a finite a > 0 and a finite b, found a = {a}, b = {b}")
        return cls(parameters)

    def __call__(self, kind: str, score: float) -> float:
        if kind not in self.parameters:
            return score
        a, b = self.parameters[kind]
        score = min(max(score, _TINY), 1 - _TINY)
        return 1 / (1 + math.exp(min(-a * math.log(score / (1 - score)) - b, 700.0)))


_TINY = 1e-9


def _run(ids: Sequence[int], start: int, belongs) -> int:
    while start < len(ids) and belongs(ids[start]):
        start += 1
    return start


def _mean(values: Iterator[float]) -> float:
    """Geometric mean; 1 of nothing."""
    logs = [math.log(min(max(value, _TINY), 1.0)) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0
