"""Measure a model on fresh scenes of the small world: every task, the same weights, each score with an interval and a blind baseline.

Scenes come from the test stream: backgrounds, sprite warps and dictionary words that training never drew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from ..engine.scores import Calibration
from ..errors import UsageError
from ..evaluation.calibration import calibration_error, fit_platt
from ..model.mask_codec import MaskCodec
from ..predictor import Predictor
from ..results import Box
from ..tasks import segment as segment_task
from .lessons import Lesson, Teacher, bins, label
from .metrics import Score, average_precision, characters_right, judged, majority, mask_iou, mean_score
from .names import LANGUAGES
from .train_codec import square_mask
from .world import SIZE, Placed, Scene, Split, World

BATCH = 64
PASSES = 5
"""How often each scene is looked at for another question of a kind."""
COUNTS = ("0", "1", "2", "3", "4")

Sample = tuple[Scene, Lesson]


class Examination:
    """Scenes and questions of a stream, `count` samples a task (fewer where the scenes do not give as many different questions).

    Pictures are as large as the model takes them, but never smaller than SIZE. Raises `UsageError` if `count` is less than 1.
    """

    def __init__(self, predictor: Predictor, count: int, seed: int = 1, log: Callable[[str], None] = print, *, split: Split = Split.TEST):
        if count < 1:
            raise UsageError(f"a measurement needs at least one sample a task, got {count}")
        # Box scores are measured raw: a fit on top of another would mean nothing.
        self.predictor, self.count, self.seed, self.log = predictor.with_calibration(Calibration()), count, seed, log
        self.world = World(split, seed=seed, side=max(SIZE, predictor.config.vision.image_size))
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
        """All scores: name -> Score, calibration errors as plain numbers, and the fitted calibration of box scores as "calibration"."""
        scores: dict[str, Any] = {}
        for part in (self.detection, self.counting, self.questions, self.captions, self.segmentation, self.reading):
            found = part()
            scores |= found
            for name, score in found.items():
                self.log(f"{name}: {score}")
        return scores

    def detection(self) -> dict[str, Any]:
        """AP50, AP75, exact class sets, and the calibration error of box scores: fitted on half of the scenes, measured on the rest."""
        rng = self._rng(1)
        samples = [(scene, self.teacher.detect(scene, rng)) for scene in self.objects[: self.count]]
        results = [r for part in _parts(samples)
                   for r in self.predictor.detect([picture(s) for s, _ in part], [list(lesson.asked) for _, lesson in part])]  # fmt: skip
        truths = [[box_of(scene.objects[i]) for i in lesson.targets] for scene, lesson in samples]
        guesses = [list(result.boxes) for result in results]
        same = [sorted(b.label for b in t) == sorted(b.label for b in g) for t, g in zip(truths, guesses, strict=True)]
        each = float(np.mean([sorted(b.label for b in t) == sorted(lesson.asked) for t, (_, lesson) in zip(truths, samples, strict=True)]))
        a, b = fit_platt(*judged(truths[::2], guesses[::2]))
        raw, right = judged(truths[1::2], guesses[1::2])
        calibration = Calibration({"box": (a, b)})
        fitted = np.array([calibration("box", score) for score in raw])
        return {
            "detection AP50": average_precision(truths, guesses, "ap50"),
            "detection AP75": average_precision(truths, guesses, "ap75"),
            "class set exact": mean_score(same, each),
            "box score ECE before fitting": calibration_error(raw, right),
            "box score ECE after fitting": calibration_error(fitted, right),
            "calibration": {"box": {"a": a, "b": b}},
        }

    def counting(self) -> dict[str, Score]:
        """Exact counts; each answer from 0 to 4 is the right one equally often."""
        asked = self._different(self.teacher.count, "count", 2)
        by_answer = {answer: [sample for sample in asked if sample[1].suffix == answer] for answer in COUNTS}
        share = max(1, self.count // len(COUNTS))
        samples = [sample for found in by_answer.values() for sample in found[:share]]
        return {"counting exact": mean_score(self._ask(samples), _blind(samples))}

    def questions(self) -> dict[str, Score]:
        """Questions by kind; colour, relation and yes-no ones together too. The blind baseline of those knows the kind of question."""
        t = self.teacher
        kinds = {"colour": t.colour, "relation": t.relation, "presence": t.presence, "side": t.side, "place": t.place}
        scores, everything, blind = {}, [], []
        for stream, (name, ask) in zip((3, 4, 5, 8, 9), kinds.items(), strict=True):
            samples = self._different(ask, name, stream)[: self.count]
            if samples:
                right = self._ask(samples)
                scores[f"{name} questions"] = mean_score(right, _blind(samples))
                if name in ("colour", "relation", "presence"):
                    everything += right
                    blind += [_blind(samples)] * len(samples)
        scores["colour, relation and yes-no questions"] = mean_score(everything, float(np.mean(blind)))
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
        middle = [mask_iou(_middle(scene.side), scene.mask(i)) for scene, i in spots]
        scores = {"referring segmentation mIoU": mean_score(ious, float(np.mean(middle)))}
        if hasattr(self.predictor.codec, "encode"):  # a pack's has no encoder
            codec = cast(MaskCodec, self.predictor.codec)
            ceiling = [mask_iou(_through(codec, scene.objects[i]), scene.mask(i)) for scene, i in spots]
            scores["mask codec ceiling mIoU"] = mean_score(ceiling, float(np.mean(middle)))
        sided = [row for row, (_, lesson) in enumerate(samples) if " on the " in lesson.asked[0]]
        if sided:
            blind = float(np.mean([middle[row] for row in sided]))
            scores["segmentation mIoU, phrases with a side"] = mean_score([ious[row] for row in sided], blind)
        return scores

    def reading(self) -> dict[str, Score]:
        """Printed words: characters right and whole texts exact, also for dictionary words never printed in training."""
        truths = [self.teacher.ocr(scene).suffix for scene in self.texts]
        guesses = [r.text for part in _parts(self.texts) for r in self.predictor.ocr([picture(s) for s in part])]
        pairs = list(zip(guesses, truths, strict=True))
        usual = max(truths, key=truths.count)
        return {
            "reading, characters right": mean_score(
                [characters_right(g, t) for g, t in pairs], float(np.mean([characters_right(usual, t) for t in truths]))
            ),
            "reading, exact": mean_score([g == t for g, t in pairs], majority(truths)),
        }

    def _different(self, ask: Callable[[Scene, np.random.Generator], Lesson], kind: str, stream: int) -> list[Sample]:
        """Questions of a kind about all scenes, no two of them the same question about the same scene. Not every scene has one."""
        rng = self._rng(stream)
        found: dict[tuple[int, str], Sample] = {}
        for number, scene in list(enumerate(self.objects)) * PASSES:
            lesson = ask(scene, rng)
            if lesson.kind == kind:
                found.setdefault((number, lesson.prefix), (scene, lesson))
        return list(found.values())

    def _ask(self, samples: list[Sample]) -> list[bool]:
        """Which of the questions are answered rightly."""
        guesses = [r.text for part in _parts(samples)
                   for r in self.predictor.run([picture(s) for s, _ in part], [lesson.prefix for _, lesson in part])]  # fmt: skip
        return [guess == lesson.suffix for guess, (_, lesson) in zip(guesses, samples, strict=True)]

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])


@torch.inference_mode()
def _through(codec: MaskCodec, spot: Placed) -> np.ndarray:
    """The mask after its way through 16 codes."""
    mask = torch.from_numpy(square_mask(spot.sprite.mask))[None]
    soft = codec.decode(codec.encode(mask))[0].numpy()
    return segment_task.paste(soft, bins(spot), spot.side, spot.side)


def write_scores(scores: dict[str, Any], path: Path) -> None:
    """As JSON."""
    plain = {name: asdict(score) if isinstance(score, Score) else score for name, score in scores.items()}
    path.write_text(json.dumps(plain, indent=2) + "\n")


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(scene.pixels)


def box_of(spot: Placed) -> Box:
    return Box(label(spot), spot.x0, spot.y0, spot.x1, spot.y1, None)


def _middle(side: int) -> np.ndarray:
    """A guess by someone who does not look: a square in the middle, half as wide as the picture."""
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side - side // 4, side // 4 : side - side // 4] = True
    return mask


def _blind(samples: list[Sample]) -> float:
    """What someone gets who always gives the most frequent answer."""
    return majority([lesson.suffix for _, lesson in samples])


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    return (items[i : i + BATCH] for i in range(0, len(items), BATCH))
