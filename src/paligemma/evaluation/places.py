"""Whether boxes and masks are where they should be: COCO's average precision by pycocotools, and overlap for one thing that was meant.

Needs pycocotools (the extra `eval`) for average precision only; overlaps are numpy.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import UsageError
from ..mask_formats import decompress, from_run_lengths

Kind = Literal["box", "mask"]
_IOU_TYPE = {"box": "bbox", "mask": "segm"}


@dataclass(frozen=True)
class Place:
    """An object in a picture: label, left, top, right, bottom in pixels, and where it has a mask COCO's run lengths {"size", "counts"}.

    `score`: of a guess, in [0, 1]; None counts as 0. `ignored`: of a truth: neither to be found nor wrong to be found (COCO's crowds).
    """

    label: str
    box: tuple[float, float, float, float]
    rle: Mapping[str, Any] | None = None
    score: float | None = None
    ignored: bool = False


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two boxes (left, top, right, bottom) over their union; 0 where both have no area."""

    def area(x0: float, y0: float, x1: float, y1: float) -> float:
        return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)

    common = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - common
    return common / union if union else 0.0


def mask_overlap(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """Pixels of two boolean masks (H, W): in both, in either."""
    return int((a & b).sum()), int((a | b).sum())


def mask_of(rle: Mapping[str, Any]) -> np.ndarray:
    """COCO's compressed run lengths -> boolean (H, W). Raises `ValueError` for broken ones."""
    height, width = map(int, rle["size"])
    return from_run_lengths(decompress(rle["counts"]), height, width)


def area_of(rle: Mapping[str, Any]) -> int:
    """Covered pixels. Raises `ValueError` for broken run lengths: pycocotools would read past their end."""
    height, width = map(int, rle["size"])
    counts = decompress(rle["counts"])
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"run lengths must add up to {height} x {width} pixels")
    return sum(counts[1::2])


@dataclass(frozen=True)
class Judged:
    """A guess in prediction number `row`: its score, and how right it was, 0 to 1. An object is right when it found a true one of its label
    at IoU 0.5 that no better guess had.
    """

    row: int
    score: float
    right: float


class Evaluation:
    """COCO's evaluation of guesses against truths, picture by picture, by pycocotools.

    Every label of either is a class; classes without a true object do not count. `UsageError` where pycocotools is missing, or where there
    is no true object at all, so that there is nothing to be precise about.
    """

    def __init__(self, truths: Sequence[Sequence[Place]], guesses: Sequence[Sequence[Place]], kind: Kind = "box"):
        try:
            from pycocotools.cocoeval import COCOeval
        except ImportError as error:
            raise UsageError("average precision is measured with the package pycocotools", hint="pip install 'paligemma[eval]'") from error
        if all(place.ignored for places in truths for place in places):
            raise UsageError("there is no true object in these pictures: average precision is not defined")
        self.kind: Kind = kind
        self.labels = sorted({place.label for places in (*truths, *guesses) for place in places})
        self.pictures = len(truths)
        ids = {label: number for number, label in enumerate(self.labels, 1)}
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco: Any = COCOeval(_dataset(truths, ids, kind), _dataset(guesses, ids, kind), _IOU_TYPE[kind])  # pyright: ignore[reportArgumentType]
            self._coco.evaluate()
            self._coco.accumulate()
        self._areas = len(self._coco.params.areaRng)
        # Of every class and picture the evaluation over objects of all sizes, the first of the areas.
        images = np.empty(len(self.labels) * self._areas * self.pictures, object)
        images[:] = self._coco.evalImgs
        self._images = images.reshape(len(self.labels), self._areas, self.pictures)[:, 0]

    def values(self) -> dict[str, float]:
        """COCO's summary, 0 to 1; sizes of which there is no true object are left out."""
        precision, recall = self._coco.eval["precision"], self._coco.eval["recall"]
        found = {"ap": _mean(precision[..., 0, -1]), "ap50": _mean(precision[0, ..., 0, -1]), "ap75": _mean(precision[5, ..., 0, -1])}
        found |= {f"ap_{size}": _mean(precision[..., area, -1]) for area, size in enumerate(("small", "medium", "large"), 1)}
        found |= {f"ar{most}": _mean(recall[..., 0, place]) for place, most in enumerate(self._coco.params.maxDets)}
        return {name: value for name, value in found.items() if value is not None}

    def by_class(self) -> dict[str, float]:
        """AP of each class that has a true object."""
        precision = self._coco.eval["precision"]
        values = {label: _mean(precision[:, :, number, 0, -1]) for number, label in enumerate(self.labels)}
        return {label: value for label, value in values.items() if value is not None}

    def resampled(self, rows: np.ndarray) -> float:
        """AP of the pictures `rows`, some of them several times. (Classes of which none holds an object do not count.)"""
        times = np.bincount(rows, minlength=self.pictures)
        values = [curve.ap(times, self._coco.params.recThrs) for curve in self._curves]
        return float(np.mean([value for value in values if value is not None] or [0.0]))

    @functools.cached_property
    def _curves(self) -> list[_Curve]:
        return [_Curve.of([image for image in images if image is not None], self.pictures) for images in self._images]

    def judged(self) -> list[Judged]:
        """Every guess but those that found something to be ignored, at most a hundred of each class and picture."""
        return [
            Judged(row, float(score), float(match > 0))
            for (_, row), image in np.ndenumerate(self._images) if image is not None
            for score, match, ignored in zip(image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0], strict=True) if not ignored
        ]  # fmt: skip

    def f1(self) -> np.ndarray:
        """Of each picture: 2 * found / (true objects + guesses) at IoU 0.5; 1 where there is neither. To tell good pictures from bad."""
        found, everything = np.zeros(self.pictures), np.zeros(self.pictures)
        for (_, row), image in np.ndenumerate(self._images):
            if image is not None:
                counted = ~np.asarray(image["dtIgnore"][0], bool)
                found[row] += (np.asarray(image["dtMatches"][0])[counted] > 0).sum()
                everything[row] += counted.sum() + (~np.asarray(image["gtIgnore"], bool)).sum()
        return np.where(everything > 0, 2 * found / np.maximum(everything, 1), 1.0)


@dataclass(frozen=True)
class _Curve:
    """The guesses of a class, best first: which picture each is of (D,), whether it found something and whether not, at each threshold
    (T, D); and how many objects there are in each picture (I,).
    """

    picture: np.ndarray
    found: np.ndarray
    missed: np.ndarray
    objects: np.ndarray

    @classmethod
    def of(cls, images: Sequence[Mapping[str, Any]], pictures: int) -> _Curve:
        objects = np.zeros(pictures)
        for image in images:
            objects[image["image_id"]] = (~np.asarray(image["gtIgnore"], bool)).sum()
        if not images:
            return cls(np.zeros(0, int), np.zeros((1, 0)), np.zeros((1, 0)), objects)
        order = np.argsort(-np.concatenate([image["dtScores"] for image in images]), kind="mergesort")  # as pycocotools
        picture = np.concatenate([np.full(len(image["dtScores"]), image["image_id"]) for image in images])[order]
        matched = np.concatenate([image["dtMatches"] > 0 for image in images], 1)[:, order]
        counted = ~np.concatenate([np.asarray(image["dtIgnore"], bool) for image in images], 1)[:, order]
        return cls(picture, matched & counted, ~matched & counted, objects)

    def ap(self, times: np.ndarray, recalls: np.ndarray) -> float | None:
        """Mean precision at `recalls` and all thresholds, where picture i counts `times[i]` times; None without an object."""
        there = times @ self.objects
        if not there:
            return None
        weights = times[self.picture]
        found, missed = np.cumsum(weights * self.found, 1), np.cumsum(weights * self.missed, 1)
        precision = found / np.maximum(found + missed, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        total = 0.0
        for row, reached in zip(precision, found / there, strict=True):
            places = np.searchsorted(reached, recalls)
            total += row[places[places < len(row)]].sum()
        return total / (len(precision) * len(recalls))


def _dataset(pictures: Sequence[Sequence[Place]], ids: Mapping[str, int], kind: Kind) -> Any:
    """`pycocotools.coco.COCO` of these places, one image a picture."""
    from pycocotools.coco import COCO

    annotations, images = [], []
    for number, places in enumerate(pictures):
        height, width = next((place.rle["size"] for place in places if place.rle), (0, 0))
        images.append({"id": number, "height": height, "width": width})
        for place in places:
            x0, y0, x1, y1 = place.box
            size = max(x1 - x0, 0.0) * max(y1 - y0, 0.0)
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": ids[place.label],
                "iscrowd": int(place.ignored),
            }
            annotation |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": place.score or 0.0}
            if place.rle is not None:
                size = float(area_of(place.rle))  # COCO sorts boxes, too, by the area of their masks
                annotation["segmentation"] = dict(place.rle)
            elif kind == "mask":
                raise UsageError(
                    f"{place.label or 'an object'} has no mask, and masks are to be compared", hint="--metric ap measures boxes"
                )
            annotations.append(annotation | {"area": size})
    coco: Any = COCO()
    coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": id, "name": name} for name, id in ids.items()]}
    coco.createIndex()
    return coco


def _mean(values: np.ndarray) -> float | None:
    """Without the -1 that stand for nothing to find."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
