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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError, did_you_mean
from ..tasks.detect import Found
from .options import Generation


def text_score(generation: Generation) -> float:
    """Of a whole answer. An answer cut by length has no end token to count."""
    return math.exp(min(0.0, generation.logprob) / max(1, len(generation.ids) + (generation.stop == "eos")))


def box_score(generation: Generation, found: Found, separator: Callable[[int], bool]) -> float:
    """Of an object that was read from `generation.ids`. `separator` tells the tokens that stand between objects."""
    probs, kinds = generation.probs, generation.kind_probs
    going_on = math.prod(probs[i] for i in _before(generation.ids, found.start, separator))
    label = math.prod(probs[i] for i in range(found.label_start, found.end))
    coords = _mean(probs[i] / max(kinds[i], _TINY) for i in range(found.start, found.start + 4))
    return min(going_on * kinds[found.start] * label * coords, 1.0)


def mask_score(generation: Generation, found: Found, separator: Callable[[int], bool]) -> float:
    codes = range(found.start + 4, found.start + 4 + len(found.codes or ()))
    return box_score(generation, found, separator) * _mean(generation.probs[i] for i in codes)


def _before(ids: Sequence[int], start: int, separator: Callable[[int], bool]) -> range:
    """The tokens that led on to the object at `start`: the separator and what follows it, a blank at most."""
    for i in range(start - 1, max(start - 3, -1), -1):
        if separator(ids[i]):
            return range(i, start)
    return range(0)


KINDS = ("text", "box", "mask")
MAX_CALIBRATION = 64 << 10
_RAW = "delete it for raw scores"


@dataclass(frozen=True)
class Calibration:
    """Platt parameters (a, b) by kind of score (of `KINDS`); a kind that is absent stays raw."""

    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read `calibration.json`; what is not of its form raises `CheckpointError`."""
        if (size := path.stat().st_size) > MAX_CALIBRATION:
            raise CheckpointError(f"{path}: {size:,} bytes, the limit is {MAX_CALIBRATION:,}", hint=_RAW)
        try:
            parameters = {kind: (float(pair["a"]), float(pair["b"])) for kind, pair in json.loads(path.read_text("utf-8")).items()}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f'{path}: expected {{"box": {{"a": number, "b": number}}, ...}}', hint=_RAW) from error
        for kind, (a, b) in parameters.items():
            if kind not in KINDS:
                hint = did_you_mean(kind, KINDS, "known kinds: " + ", ".join(KINDS))
                raise CheckpointError(f"{path}: no score is of the kind {kind[:60]!a}", hint=hint)
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


def _mean(values: Iterable[float]) -> float:
    """Geometric mean; 1 of nothing."""
    logs = [math.log(min(max(value, _TINY), 1.0)) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0
