"""Whether scores are frequencies, and how to make them so: reliability, and a fit of the two numbers of a model's `calibration.json`.

Of the answers that score 0.8, eight in ten should be right; then `min_score=0.8` means something. The fit is Platt's: a score becomes
sigmoid(a * logit(score) + b), which keeps the order. Usually a temperature does (b = 0; Guo et al., arXiv 1706.04599); the bias is added
where it helps on records that the fit has not seen. numpy only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.locate import CALIBRATION
from ..engine.scores import Calibration
from ..errors import UsageError
from .places import Judged

BINS = 10
MIN_SLOPE = 0.01
"""Least slope of a calibration: above zero, so that the order of scores stays."""
FEWEST = 20
"""Guesses with a score that a fit needs at least, and as many to try it on."""


@dataclass(frozen=True)
class Bin:
    """Guesses of similar score: their mean score, the share that is right, how many there are."""

    score: float
    right: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """`ece`: expected calibration error, mean |score - share right| over the bins, weighted by size; `log_loss`: in nats a guess."""

    bins: tuple[Bin, ...]
    ece: float
    log_loss: float
    count: int


def reliability(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Scores (N,) in [0, 1] and how right each guess was (N,), 0 to 1 -> equally filled bins, from low scores to high."""
    parts = [part for part in np.array_split(np.argsort(scores, kind="stable"), bins) if len(part)]
    found = tuple(Bin(float(scores[part].mean()), float(right[part].mean()), len(part)) for part in parts)
    ece = sum(one.count * abs(one.score - one.right) for one in found) / max(1, len(scores))
    return Reliability(found, ece, log_loss(scores, right), len(scores))


def calibration_error(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error over equally filled bins; 0 for no scores."""
    return reliability(scores, right, bins).ece


def log_loss(scores: np.ndarray, right: np.ndarray) -> float:
    """Mean surprise, in nats, at what was right; 0 for no scores."""
    return _loss(logit(scores), right) / max(1, len(scores))


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), finite also at 0 and 1."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def fit_temperature(scores: np.ndarray, right: np.ndarray) -> float:
    """a >= `MIN_SLOPE` that makes sigmoid(a * logit(score)) the most likely explanation of `right` (0 to 1 each); 1 for no scores."""
    (a,) = _logistic(logit(scores)[:, None], right, np.ones(1), np.zeros(len(scores)))
    return float(max(a, MIN_SLOPE))


def fit_platt(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """a >= `MIN_SLOPE` and b that make sigmoid(a * logit(score) + b) the most likely explanation of `right` (0 to 1 each).

    Drawn very slightly towards a = 1, b = 0, which is the answer for no scores and keeps separable ones finite.
    """
    x, ones = logit(scores), np.ones((len(scores), 1))
    a, b = _logistic(np.column_stack([x, ones]), right, np.array([1.0, 0.0]), np.zeros(len(x)))
    if a < MIN_SLOPE:  # the likelihood is concave, so its maximum over a >= MIN_SLOPE lies on that edge
        a = MIN_SLOPE
        (b,) = _logistic(ones, right, np.zeros(1), a * x)
    return float(a), float(b)


def _logistic(design: np.ndarray, right: np.ndarray, prior: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Weights (K,) of a logistic regression with design (N, K), weakly regularised towards `prior`: Newton's method, steps halved
    while they overshoot."""
    regular = 1e-3

    def loss(weights: np.ndarray) -> float:
        z = offset + design @ weights
        return float(np.logaddexp(0, z).sum() - right @ z + 0.5 * regular * ((weights - prior) ** 2).sum())

    weights = prior
    for _ in range(100):
        p = np.exp(-np.logaddexp(0, -(offset + design @ weights)))
        gradient = design.T @ (p - right) + regular * (weights - prior)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + regular * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights


@dataclass(frozen=True)
class Fit:
    """The parameters of one kind of score, and the reliability on the half of the records that the fit has not seen, before and after.

    `a`, `b` apply to the model's raw scores.
    """

    a: float
    b: float
    before: Reliability
    after: Reliability
    fitted_on: int


@dataclass(frozen=True)
class Fitted:
    """`fits` by kind of score; `skipped`: kinds that had too few guesses, and how many."""

    fits: Mapping[str, Fit]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def calibration(self) -> Calibration:
        return Calibration({kind: (fit.a, fit.b) for kind, fit in self.fits.items()})

    def __str__(self) -> str:
        lines = []
        for kind, fit in self.fits.items():
            way = f"temperature {1 / fit.a:.2f}" + (f", bias {fit.b:+.2f}" if fit.b else "")
            lines.append(f"{kind} scores: {way}; fitted on {fit.fitted_on} guesses, tried on {fit.after.count} others")
            lines.append(
                f"  ECE {fit.before.ece:.3f} -> {fit.after.ece:.3f}, log loss {fit.before.log_loss:.3f} -> {fit.after.log_loss:.3f}"
            )
        lines += [f"{kind} scores: only {count} guesses, not fitted" for kind, count in self.skipped.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_calibration(judged: Mapping[str, Sequence[Judged]], pictures: Sequence[object], base: Calibration | None = None) -> Fitted:
    """Fit every kind of score on every other picture and try it on the rest.

    `judged` as in `measures.Measured`; `pictures`: what the prediction of each row is about, so that one picture's guesses stay together.
    `base`: the calibration that was in force when the scores were made; what is fitted contains it. Raises `UsageError` where no kind has
    enough guesses.
    """
    base = base or Calibration()
    number = {picture: place for place, picture in enumerate(dict.fromkeys(pictures))}
    fits, skipped = {}, {}
    for kind, guesses in judged.items():
        scores, right = np.array([g.score for g in guesses], float), np.array([g.right for g in guesses], float)
        half = np.array([number[pictures[g.row]] % 2 for g in guesses], int)
        if min((half == 0).sum(), (half == 1).sum()) < FEWEST:
            skipped[kind] = len(guesses)
            continue
        seen, unseen = half == 0, half == 1
        a, b = _fit(scores[seen], right[seen])
        after = np.array([Calibration({kind: (a, b)})(kind, score) for score in scores[unseen]])
        old_a, old_b = base.parameters.get(kind, (1.0, 0.0))
        tried = reliability(scores[unseen], right[unseen]), reliability(after, right[unseen])
        fits[kind] = Fit(a * old_a, a * old_b + b, *tried, fitted_on=int(seen.sum()))
    if not fits:
        found = ", ".join(f"{count} {kind} scores" for kind, count in skipped.items()) or "none"
        raise UsageError(
            f"a calibration needs at least {2 * FEWEST} guesses that have a score and can be right or wrong, found {found}",
            hint="use more records of a validation split; captions have no right and wrong",
        )
    return Fitted(fits, skipped)


def _fit(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """A temperature, or with a bias where half of the guesses says that this is better for the other half."""
    gain = 0.0
    for fitted, tried in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        x, (a, b) = logit(scores[tried]), fit_platt(scores[fitted], right[fitted])
        plain = fit_temperature(scores[fitted], right[fitted]) * x
        gain += _loss(plain, right[tried]) - _loss(a * x + b, right[tried])
    return fit_platt(scores, right) if gain > 0 else (fit_temperature(scores, right), 0.0)


def _loss(x: np.ndarray, right: np.ndarray) -> float:
    return float((np.logaddexp(0, x) - right * x).sum())


def save_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write `calibration.json` beside a model; kinds of score that it does not have keep what the file says. Returns the file's path."""
    path = folder / CALIBRATION
    before = Calibration.load(path).parameters if path.is_file() else {}
    plain = {kind: {"a": a, "b": b} for kind, (a, b) in {**before, **calibration.parameters}.items()}
    unfinished = path.with_name(f".{CALIBRATION}.{os.getpid()}")
    unfinished.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path
