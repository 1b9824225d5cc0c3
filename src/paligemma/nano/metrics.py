"""Scores of the small world's tasks, as plain functions of values, each with a bootstrap interval; `evaluation.places` judges boxes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..evaluation.answers import edit_distance
from ..evaluation.places import Evaluation, Place, mask_overlap
from ..results import Box

RESAMPLES = 1000
THRESHOLDS = {"ap50": 0, "ap75": 5}
"""Key of COCO's summary -> place of its IoU threshold among 0.5, 0.55, ... 0.95."""


@dataclass(frozen=True)
class Score:
    """`value` with its 95 % bootstrap interval `low` to `high` over `count` samples; `baseline`: a guess that never looks."""

    value: float
    low: float
    high: float
    count: int
    baseline: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.count} baseline {self.baseline:.3f}"


def mean_score(values: Sequence[float], baseline: float, seed: int = 0) -> Score:
    """Mean of per-sample values. Raises `UsageError` if there is none."""
    if not len(values):
        raise UsageError("there is no sample to average over", hint="ask for more samples")
    array = np.asarray(values, float)
    means = _resampled(len(array), lambda rows: array[rows].mean(), seed)
    return Score(float(array.mean()), *means, len(array), baseline)


def majority(truths: Sequence[str]) -> float:
    """Share of the most frequent answer, of one at least."""
    _, counts = np.unique(np.asarray(truths), return_counts=True)
    return float(counts.max() / counts.sum())


def characters_right(guess: str, truth: str) -> float:
    """1 - edit distance / length of the truth, at least 0."""
    return max(0.0, 1.0 - edit_distance(guess, truth) / max(1, len(truth)))


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two boolean masks over their union; 1 for two empty ones."""
    both, either = mask_overlap(a, b)
    return both / either if either else 1.0


class _AtThreshold(Evaluation):
    """COCO's evaluation, resampled at one IoU threshold in place of all."""

    def __init__(self, truths: Sequence[Sequence[Place]], guesses: Sequence[Sequence[Place]], number: int):
        super().__init__(truths, guesses)
        self._number = number

    @functools.cached_property
    def _curves(self) -> list[Any]:
        only = slice(self._number, self._number + 1)
        return [dataclasses.replace(curve, found=curve.found[only], missed=curve.missed[only]) for curve in super()._curves]


def average_precision(truths: Sequence[Sequence[Box]], guesses: Sequence[Sequence[Box]], key: str, seed: int = 0) -> Score:
    """COCO's AP at one IoU threshold, mean over the labels that occur, with an interval from resampling the pictures. A blind guess scores
    about 0.

    `truths` and scored `guesses` picture by picture; `key`: one of `THRESHOLDS`. 0 where there are no truths at all. Raises `UsageError`
    where pycocotools is missing.
    """
    if not any(truths):
        return Score(0.0, 0.0, 0.0, len(truths), 0.0)
    evaluation = _AtThreshold(_places(truths), _places(guesses), THRESHOLDS[key])
    return Score(evaluation.values()[key], *_resampled(len(truths), evaluation.resampled, seed), len(truths), 0.0)


def judged(truths: Sequence[Sequence[Box]], guesses: Sequence[Sequence[Box]]) -> tuple[np.ndarray, np.ndarray]:
    """Score of every guess, picture by picture and surest first; and 1 where it found a true box of its label at IoU 0.5 that no better
    guess had found, else 0."""
    if not any(truths):
        scores = np.array([box.score or 0.0 for boxes in guesses for box in boxes])
        return scores, np.zeros(len(scores))
    found = sorted(Evaluation(_places(truths), _places(guesses)).judged(), key=lambda one: (one.row, -one.score))
    return np.array([one.score for one in found]), np.array([one.right for one in found])


def _places(pictures: Sequence[Sequence[Box]]) -> list[list[Place]]:
    return [[Place(box.label, (box.x0, box.y0, box.x1, box.y1), score=box.score) for box in boxes] for boxes in pictures]


def _resampled(count: int, statistic: Callable[[np.ndarray], float], seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, count, count)) for _ in range(RESAMPLES)]
    return float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))
