"""Scores of the small world's tasks, as plain functions of values, each with a bootstrap interval. Numpy only; COCO's AP by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..evaluation.answers import edit_distance
from ..results import Box

RESAMPLES = 1000
AP_RESAMPLES = 30
"""Fewer, since each is a whole COCO evaluation."""


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
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0


def average_precision(truths: Sequence[Sequence[Box]], guesses: Sequence[Sequence[Box]], iou: float) -> float:
    """COCO's AP at one IoU threshold, mean over the labels that occur: truths and scored guesses, picture by picture.

    0 where there are no truths or no guesses at all.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UsageError("measuring AP needs the package pycocotools", hint="pip install 'paligemma[world]'") from error
    labels = sorted({box.label for boxes in truths for box in boxes})
    ids = {name: i + 1 for i, name in enumerate(labels)}
    annotations = [
        {"id": n + 1, "image_id": image, "category_id": ids[box.label], "bbox": _xywh(box), "area": box.area, "iscrowd": 0}
        for n, (image, box) in enumerate((image, box) for image, boxes in enumerate(truths) for box in boxes)
    ]
    results = [
        {"image_id": image, "category_id": ids[box.label], "bbox": _xywh(box), "score": box.score or 0.0}
        for image, boxes in enumerate(guesses) for box in boxes if box.label in ids
    ]  # fmt: skip
    if not annotations or not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(truths))], "annotations": annotations,
            "categories": [{"id": i, "name": name} for name, i in ids.items()],
        }  # fmt: skip
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([iou])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def average_precision_score(truths: Sequence[Sequence[Box]], guesses: Sequence[Sequence[Box]], iou: float, seed: int = 0) -> Score:
    """AP, with an interval from resampling the pictures. A blind guess scores about 0."""
    value = average_precision(truths, guesses, iou)

    def resampled(rows: np.ndarray) -> float:
        return average_precision([truths[i] for i in rows], [guesses[i] for i in rows], iou)

    return Score(value, *_resampled(len(truths), resampled, seed, AP_RESAMPLES), len(truths), 0.0)


def _xywh(box: Box) -> list[float]:
    return [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0]


def _resampled(count: int, statistic: Callable[[np.ndarray], float], seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, count, count)) for _ in range(resamples)]
    return float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))
