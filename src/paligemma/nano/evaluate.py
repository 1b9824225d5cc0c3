"""Measure a model on fresh scenes of the small world: every task, the same weights, each score with an interval and a blind baseline.

Scenes come from the test stream: backgrounds, sprite warps and dictionary words that training never drew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..predictor import Predictor
from ..results import Box
from ..tasks import segment as segment_task
from ..tasks.detect import box_bins
from .lessons import Lesson, Teacher, label, shares
from .metrics import (
    Score,
    average_precision_score,
    calibration_error,
    characters_right,
    fit_platt,
    majority,
    mask_iou,
    mean_score,
)  # fmt: skip
from .names import LANGUAGES
from .train_codec import square_mask
from .world import SIZE, Placed, Scene, Split, World

BATCH = 64
MAX_TRIES = 20
"""Scenes drawn per wanted sample before giving up on finding a kind of question."""


class Examination:
    """Scenes and questions of the test stream, `count` samples a task."""

    def __init__(self, predictor: Predictor, count: int = 500, seed: int = 1, log: Callable[[str], None] = print):
        self.predictor, self.count, self.seed, self.log = predictor, count, seed, log
        self.world = World(Split.TEST, seed=seed)
        self.teacher = Teacher()
        wanted = 2 * count
        self.objects: list[Scene] = []
        self.texts: list[Scene] = []
        index = 0
        while len(self.objects) < wanted or len(self.texts) < count:
            scene = self.world.scene(index)
            index += 1
            if scene.lines and len(self.texts) < count:
                self.texts.append(scene)
            elif scene.objects and len(self.objects) < wanted:
                self.objects.append(scene)

    def run(self) -> dict[str, Any]:
        """All scores: name -> Score, plus the fitted calibration of box scores under "calibration"."""
        scores: dict[str, Any] = {}
        for part in (self.detection, self.counting, self.questions, self.captions, self.segmentation, self.reading):
            found = part()
            scores |= found
            for name, score in found.items():
                self.log(f"{name}: {score}")
        return scores

    def detection(self) -> dict[str, Any]:
        """AP50, AP75, exact class sets, and the calibration error of box scores: fitted on one half, measured on the other."""
        rng = self._rng(1)
        scenes = self.objects[: self.count]
        lessons = [self.teacher.detect(scene, rng) for scene in scenes]
        results = [r for part in _parts(list(zip(scenes, lessons, strict=True)))
                   for r in self.predictor.detect([picture(s) for s, _ in part], [list(lesson.asked) for _, lesson in part])]  # fmt: skip
        truths = [[box_of(scene.objects[i]) for i in lesson.targets] for scene, lesson in zip(scenes, lessons, strict=True)]
        guesses = [list(result.boxes) for result in results]
        same = [sorted(b.label for b in t) == sorted(b.label for b in g) for t, g in zip(truths, guesses, strict=True)]
        blind = float(np.mean([not t for t in truths]))
        right, raw = _matched(truths, guesses)
        half = len(raw) // 2
        a, b = fit_platt(raw[:half], right[:half])
        fitted = 1 / (1 + np.exp(-(a * np.log(raw / (1 - raw)) + b)))
        return {
            "detection AP50": average_precision_score(truths, guesses, 0.5),
            "detection AP75": average_precision_score(truths, guesses, 0.75),
            "class set exact": mean_score(same, blind),
            "box score ECE before fitting": calibration_error(raw[half:], right[half:]),
            "box score ECE after fitting": calibration_error(fitted[half:], right[half:]),
            "calibration": {"box": {"a": a, "b": b}},
        }

    def counting(self) -> dict[str, Score]:
        """Exact counts; the answers 0, 1, 2, 3 (and 4 where it occurs) are asked equally often."""
        rng = self._rng(2)
        by_answer: dict[str, list[tuple[Scene, Lesson]]] = {}
        for scene in self.objects * 3:
            lesson = self.teacher.count(scene, rng)
            by_answer.setdefault(lesson.suffix, []).append((scene, lesson))
        share = self.count // 4
        samples = [sample for answer in "0123" for sample in by_answer.get(answer, [])[:share]]
        return {"counting exact": self._ask(samples)}

    def questions(self) -> dict[str, Score]:
        """Colour, relation and yes-no questions."""
        kinds = {"colour": self.teacher.colour, "relation": self.teacher.relation, "presence": self.teacher.presence}
        samples = {name: self._collect(ask, name, 3 + i) for i, (name, ask) in enumerate(kinds.items())}
        scores = {f"{name} questions": self._ask(found) for name, found in samples.items()}
        scores["colour, relation and yes-no questions"] = self._ask([s for found in samples.values() for s in found])
        return scores

    def captions(self) -> dict[str, Score]:
        """Exact captions in every language."""
        scenes = self.objects[: self.count]
        scores = {}
        for lang in LANGUAGES:
            truths = [self.teacher.caption(scene, lang).suffix for scene in scenes]
            guesses = [r.text for part in _parts(scenes) for r in self.predictor.caption([picture(s) for s in part], lang=lang)]
            scores[f"caption exact {lang}"] = mean_score([g == t for g, t in zip(guesses, truths, strict=True)], majority(truths))
        return scores

    def segmentation(self) -> dict[str, Score]:
        """Mean IoU of the one mask asked for (0 where none comes), and the codec's ceiling: the true box and the true mask's codes."""
        rng = self._rng(7)
        samples = []
        for scene in self.objects:
            lesson = self.teacher.segment(scene, rng)
            if len(lesson.targets) == 1 and len(samples) < self.count:
                samples.append((scene, lesson))
        ious = []
        for part in _parts(samples):
            results = self.predictor.segment([picture(s) for s, _ in part], [list(lesson.asked) for _, lesson in part])
            for (scene, lesson), result in zip(part, results, strict=True):
                truth = scene.mask(lesson.targets[0])
                ious.append(mask_iou(result.masks[0].mask, truth) if result.masks else 0.0)
        spots = [(scene, lesson.targets[0]) for scene, lesson in samples]
        ceiling = [mask_iou(self._through_codec(scene.objects[i]), scene.mask(i)) for scene, i in spots]
        side = Box("", 28, 28, 84, 84)
        blind = float(np.mean([mask_iou(_filled(side), scene.mask(i)) for scene, i in spots]))
        referring = [iou for iou, (_, lesson) in zip(ious, samples, strict=True) if " on the " in lesson.asked[0]]
        return {
            "referring segmentation mIoU": mean_score(ious, blind),
            "segmentation mIoU, phrases with a side": mean_score(referring, blind),
            "mask codec ceiling mIoU": mean_score(ceiling, blind),
        }

    def reading(self) -> dict[str, Score]:
        """Printed words: characters right and whole texts exact, also for dictionary words never printed in training."""
        truths = [self.teacher.ocr(scene).suffix for scene in self.texts]
        guesses = [r.text for part in _parts(self.texts) for r in self.predictor.ocr([picture(s) for s in part])]
        pairs = list(zip(guesses, truths, strict=True))
        return {
            "reading, characters right": mean_score([characters_right(g, t) for g, t in pairs], 0.0),
            "reading, exact": mean_score([g == t for g, t in pairs], majority(truths)),
        }

    def _collect(self, ask: Callable[[Scene, np.random.Generator], Lesson], kind: str, stream: int) -> list[tuple[Scene, Lesson]]:
        rng = self._rng(stream)
        samples: list[tuple[Scene, Lesson]] = []
        for scene in self.objects * MAX_TRIES:
            lesson = ask(scene, rng)
            if lesson.kind == kind:
                samples.append((scene, lesson))
            if len(samples) == self.count:
                break
        return samples

    def _ask(self, samples: list[tuple[Scene, Lesson]]) -> Score:
        truths = [lesson.suffix for _, lesson in samples]
        guesses = [r.text for part in _parts(samples)
                   for r in self.predictor.run([picture(s) for s, _ in part], [lesson.prefix for _, lesson in part])]  # fmt: skip
        return mean_score([g == t for g, t in zip(guesses, truths, strict=True)], majority(truths))

    @torch.inference_mode()
    def _through_codec(self, spot: Placed) -> np.ndarray:
        codec = self.predictor.codec
        mask = torch.from_numpy(square_mask(spot.sprite.mask))[None]
        soft = codec.decode(codec.encode(mask))[0].numpy()
        return segment_task.paste(soft, bins_of(spot), SIZE, SIZE)

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])


def write_scores(scores: dict[str, Any], path: Path) -> None:
    """As JSON."""
    plain = {name: asdict(score) if isinstance(score, Score) else score for name, score in scores.items()}
    path.write_text(json.dumps(plain, indent=2) + "\n")


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(scene.pixels)


def box_of(spot: Placed) -> Box:
    return Box(label(spot), spot.x0, spot.y0, spot.x1, spot.y1, None)


def bins_of(spot: Placed) -> tuple[int, int, int, int]:
    return box_bins(*shares(spot))


def _filled(box: Box) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    return mask


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    return (items[i : i + BATCH] for i in range(0, len(items), BATCH))


def _matched(truths: list[list[Box]], guesses: list[list[Box]]) -> tuple[np.ndarray, np.ndarray]:
    """For every guess: 1 if it is the best guess for a true box of its label at IoU 0.5, and its score."""
    right, scores = [], []
    for truth, guess in zip(truths, guesses, strict=True):
        free = list(truth)
        for box in sorted(guess, key=lambda b: -(b.score or 0.0)):
            best = max((t for t in free if t.label == box.label), key=lambda t: box.iou(t), default=None)
            hit = best is not None and box.iou(best) >= 0.5
            if hit:
                free = [t for t in free if t is not best]
            right.append(hit)
            scores.append(min(max(box.score or 0.0, 1e-6), 1 - 1e-6))
    order = np.random.default_rng(0).permutation(len(right))
    return np.asarray(right, float)[order], np.asarray(scores)[order]
