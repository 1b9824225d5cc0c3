"""The examination: who knows the truth gets full marks, who never looks gets the baseline, and nobody is asked the same twice."""

from __future__ import annotations

import copy
import functools
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from paligemma.engine.scores import Calibration
from paligemma.errors import UsageError
from paligemma.nano.evaluate import COUNTS, Examination, _middle, write_scores
from paligemma.nano.lessons import Teacher, bins
from paligemma.nano.metrics import Score
from paligemma.nano.names import LANGUAGES
from paligemma.nano.publish import TARGETS
from paligemma.nano.world import SIZE
from paligemma.predictor import Predictor
from tests import tiny

from .answering import Blind, Knowing, StandIn, name_of

COUNT = 20


def silent(line: str) -> None:
    """No log."""


@functools.cache
def drawn(seed: int = 1) -> Examination:
    return Examination(Blind(""), COUNT, seed, log=silent)  # pyright: ignore[reportArgumentType]


def exam_of(predictor: StandIn) -> Examination:
    """The same examination for everybody; its scenes are drawn once."""
    exam = copy.copy(drawn())
    exam.predictor = predictor  # pyright: ignore[reportAttributeAccessIssue]
    return exam


@pytest.fixture(scope="module")
def knowing() -> Knowing:
    return Knowing(drawn().objects + drawn().texts)


@pytest.fixture(scope="module")
def perfect(knowing) -> dict[str, Any]:
    return exam_of(knowing).run()


def test_who_knows_the_truth_gets_full_marks(perfect):
    scores = {name: score for name, score in perfect.items() if isinstance(score, Score)}
    ceiling = scores.pop("mask codec ceiling mIoU")
    assert 0.95 < ceiling.value < 1, "a mask of 64 x 64 is not quite the mask"
    for name, score in scores.items():
        assert (score.value, score.low, score.high) == (pytest.approx(1),) * 3, name
        assert score.baseline < 1, name


def test_every_target_is_measured(perfect):
    assert TARGETS.keys() <= perfect.keys()
    assert {f"caption exact {lang}" for lang in LANGUAGES} < perfect.keys()


def test_modest_scores_of_right_boxes_are_raised(perfect):
    assert perfect["box score ECE before fitting"] == pytest.approx(0.1), "all right, and said with 0.9"
    assert perfect["box score ECE after fitting"] < 0.01
    parameters = perfect["calibration"]["box"]
    assert Calibration({"box": (parameters["a"], parameters["b"])})("box", 0.9) > 0.99


def test_who_answers_rubbish_gets_nothing():
    for rubbish in (Blind("rubbish"), Blind("rubbish", mask=np.zeros((SIZE, SIZE), bool))):
        scores = exam_of(rubbish).run()
        del scores["mask codec ceiling mIoU"]  # which is not about the answers
        found = {name: score.value for name, score in scores.items() if isinstance(score, Score)}
        if not rubbish.masks:  # who says that nothing is there is right where nothing is
            assert 0 < found.pop("class set exact") < 0.3
        assert found == dict.fromkeys(found, 0)


def test_an_examination_is_repeatable_and_leaves_the_predictor_alone(perfect, knowing):
    knowing.calibration = before = Calibration({"box": (2.0, 0.0)})
    assert Examination(knowing, COUNT, log=silent).run() == perfect
    assert knowing.calibration is before


def test_boxes_are_measured_raw_whatever_the_models_calibration(test_scenes):
    raw = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    calibrated = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer(), calibration=Calibration({"box": (3.0, 2.0)}))

    def scores(predictor: Predictor) -> list[float | None]:
        return [box.score for box in predictor.detect(test_scenes[0].pixels, ["cat", "dog"], max_objects=2)]

    assert scores(raw) != pytest.approx(scores(calibrated))
    examined = [scores(Examination(predictor, 1, log=silent).predictor) for predictor in (raw, calibrated)]
    assert examined[1] == pytest.approx(examined[0]), "a fit on top of another would mean nothing"


@pytest.mark.parametrize("count", [0, -3])
def test_no_samples_are_no_measurement(count):
    with pytest.raises(UsageError, match=f"got {count}"):
        Examination(Blind(""), count)  # pyright: ignore[reportArgumentType]


def test_the_scenes_are_fresh_and_different():
    first, other = drawn(), drawn(seed=2)
    assert (len(first.objects), len(first.texts)) == (2 * COUNT, COUNT)
    assert all(scene.objects for scene in first.objects)
    assert all(scene.lines for scene in first.texts)
    pictures = [name_of(scene.pixels) for exam in (first, other) for scene in exam.objects + exam.texts]
    assert len(set(pictures)) == len(pictures)
    assert all(spot.view is None for scene in first.objects for spot in scene.objects), "no sprite comes from a bank"


# Questions


def test_no_question_is_asked_twice_about_a_scene():
    for part in (Examination.counting, Examination.questions):
        stand_in = Blind("0")
        part(exam_of(stand_in))
        assert len(stand_in.asked) >= COUNT
        assert max(Counter(stand_in.asked).values()) == 1


@pytest.mark.parametrize("answer", COUNTS)
def test_every_count_is_right_equally_often(answer):
    score = exam_of(Blind(answer)).counting()["counting exact"]
    assert (score.value, score.count) == (1 / 5, COUNT)
    assert score.baseline == score.value


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("colour questions", ["red", "yellow", "green", "blue", "purple", "orange"]),
        ("relation questions", ["yes", "no"]),
        ("presence questions", ["yes", "no"]),
    ],
)
def test_the_baseline_of_questions_is_always_the_same_answer(name, answers):
    scores = [exam_of(Blind(answer)).questions()[name] for answer in answers]
    assert {score.baseline for score in scores} == {max(score.value for score in scores)}


def test_all_questions_together_know_their_kind(perfect):
    kinds = [perfect[f"{kind} questions"] for kind in ("colour", "relation", "presence")]
    together = perfect["colour, relation and yes-no questions"]
    assert together.count == sum(kind.count for kind in kinds)
    assert together.baseline == pytest.approx(sum(kind.baseline * kind.count for kind in kinds) / together.count)


# Captions, masks, print


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_baseline_of_captions_is_always_the_same_caption(lang):
    captions = Counter(Teacher().caption(scene, lang).suffix for scene in drawn().objects[:COUNT])
    ((often, times),) = captions.most_common(1)
    score = exam_of(Blind(often)).captions()[f"caption exact {lang}"]
    assert score.value == score.baseline == times / COUNT


def test_the_baseline_of_masks_is_a_square_in_the_middle():
    scores = exam_of(Blind("", _middle(SIZE))).segmentation()
    assert _middle(SIZE).mean() == 1 / 4
    for name in ("referring segmentation mIoU", "segmentation mIoU, phrases with a side"):
        assert 0 < scores[name].value == pytest.approx(scores[name].baseline)
    assert scores["mask codec ceiling mIoU"].baseline == scores["referring segmentation mIoU"].baseline


def test_one_mask_is_asked_for_and_sides_are_a_part_of_all():
    stand_in = Blind("")
    scores = exam_of(stand_in).segmentation()
    phrases = [phrase for _, _, (phrase,) in stand_in.asked]
    assert scores["referring segmentation mIoU"].count == len(phrases) == COUNT
    assert scores["segmentation mIoU, phrases with a side"].count == sum(" on the " in phrase for phrase in phrases) > 0


def test_bins_are_those_of_the_box(test_scenes):
    spot = next(scene.objects[0] for scene in test_scenes if scene.objects)
    assert np.array(bins(spot)) / 1023 * SIZE == pytest.approx([spot.y0, spot.x0, spot.y1, spot.x1], abs=0.06)


def test_print_is_asked_for_once_a_scene():
    stand_in = Blind("")
    scores = exam_of(stand_in).reading()
    assert [verb for verb, *_ in stand_in.asked] == ["caption"] * COUNT
    assert {score.count for score in scores.values()} == {COUNT}


def test_scores_are_written_as_json(perfect, tmp_path):
    write_scores(perfect, tmp_path / "scores.json")
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored.keys() == perfect.keys()
    assert stored["counting exact"] == asdict(perfect["counting exact"])
    assert stored["calibration"] == perfect["calibration"]
