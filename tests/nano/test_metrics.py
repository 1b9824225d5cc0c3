"""Scores against values worked out by hand and against other ways to compute them."""

from __future__ import annotations

import functools
import itertools
import math
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.engine.scores import Calibration
from paligemma.errors import UsageError
from paligemma.evaluation.answers import edit_distance
from paligemma.evaluation.calibration import MIN_SLOPE, calibration_error, fit_platt, logit
from paligemma.nano.metrics import (
    Score,
    average_precision,
    characters_right,
    judged,
    majority,
    mask_iou,
    mean_score,
)
from paligemma.results import Box

# Words


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("", "CAT", 3),  # all inserted
        ("CAT", "CAT", 0),
        ("CAT", "CUT", 1),  # replaced
        ("CAT", "CT", 1),  # removed
        ("CAT", "CATS", 1),  # inserted
        ("AB", "BA", 2),  # exchanging two letters is no step of its own
        ("KITTEN", "SITTING", 3),
        ("A\nB", "A B", 1),
    ],
)
def test_edit_distances(a, b, distance):
    assert edit_distance(a, b) == distance


words = st.text("AB1", max_size=6)


@given(words, words)
def test_the_edit_distance_is_that_of_its_definition(a, b):
    @functools.cache
    def least(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(least(i - 1, j) + 1, least(i, j - 1) + 1, least(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    assert edit_distance(a, b) == least(len(a), len(b))


@given(words, words, words)
def test_the_edit_distance_is_a_distance(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@pytest.mark.parametrize(
    ("guess", "truth", "share"),
    [("CAT", "CAT", 1), ("CUT", "CAT", 2 / 3), ("", "CAT", 0), ("CATCATCAT", "CAT", 0), ("", "", 1), ("A", "", 0)],
)
def test_characters_right(guess, truth, share):
    assert characters_right(guess, truth) == pytest.approx(share)


@pytest.mark.parametrize(("truths", "share"), [(["no"], 1), (["yes", "no", "no", "no"], 0.75), (["1", "2", "3"], 1 / 3)])
def test_the_majority_is_the_share_of_the_most_frequent_answer(truths, share):
    assert majority(truths) == pytest.approx(share)


# Means with intervals


def test_a_mean_and_its_interval():
    values = np.random.default_rng(0).random(400) < 0.8
    score = mean_score(values.tolist(), baseline=0.3)
    assert (score.value, score.count, score.baseline) == (values.mean(), 400, 0.3)
    error = math.sqrt(score.value * (1 - score.value) / 400)
    assert score.low == pytest.approx(score.value - 1.96 * error, abs=0.3 * error), "the bootstrap agrees with the normal approximation"
    assert score.high == pytest.approx(score.value + 1.96 * error, abs=0.3 * error)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_holds_its_value(values):
    score = mean_score(values, 0.0)
    slack = 1e-9
    assert min(values) - slack <= score.low <= score.value + slack
    assert score.value - slack <= score.high <= max(values) + slack


def test_intervals_are_repeatable():
    values = np.random.default_rng(0).random(20).tolist()
    assert mean_score(values, 0.0) == mean_score(values, 0.0)
    assert mean_score(values, 0.0, seed=1).low != mean_score(values, 0.0).low


def test_nothing_has_no_mean():
    with pytest.raises(UsageError, match="no sample"):
        mean_score([], 0.0)


def test_a_score_in_words():
    assert str(Score(0.5, 0.25, 0.75, 12, 0.1)) == "0.500 [0.250, 0.750] n=12 baseline 0.100"


# Masks


def test_mask_iou():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) == 1, "both say that nothing is there"
    a[:2] = True
    assert mask_iou(a, b) == mask_iou(b, a) == 0
    b[1:3] = True
    assert mask_iou(a, b) == pytest.approx(4 / 12)
    assert mask_iou(a, a) == 1


# Boxes


def box(x: float, score: float | None = None, name: str = "cat", side: float = 10) -> Box:
    return Box(name, x, 0, x + side, side, score)


def test_all_found_is_one_and_nothing_found_is_zero():
    truths = [[box(0), box(50)], [box(20, name="dog")], []]
    found = [[box(0, 0.9), box(50, 0.8)], [box(20, 0.7, "dog")], []]
    assert average_precision(truths, found, "ap75").value == pytest.approx(1)
    assert average_precision(truths, [[], [], []], "ap50").value == 0
    assert average_precision([[]], [[box(0, 0.9)]], "ap50").value == 0, "there is nothing to find"


RECALL_POINTS = 101
"""At which COCO reads the precision: 0, 0.01, ... 1."""


@pytest.mark.parametrize(
    ("truth", "guess", "expected"),
    [
        ([box(0), box(50)], [box(0, 0.9)], 51 / RECALL_POINTS),  # half found, no mistake: precision 1 up to recall 0.5
        ([box(0)], [box(50, 0.9), box(0, 0.8)], 0.5),  # a surer mistake
        ([box(0)], [box(0, 0.9), box(50, 0.8)], 1),  # a mistake less sure than what is right
        ([box(0)], [box(0, 0.8), box(0, 0.9)], 1),  # found twice, but the second comes after all is found
        ([box(0), box(50)], [box(0, 0.9), box(0, 0.8), box(50, 0.7)], (51 + 50 * 2 / 3) / RECALL_POINTS),  # found twice is a mistake
        ([box(0)], [box(0, 0.9, "dog")], 0),  # another label
        ([box(0)], [box(0, 0.9), box(50, 1.0, "dog")], 1),  # a label that does not occur is not asked about
        ([box(0), box(50, name="dog")], [box(0, 0.9)], 0.5),  # the mean over two labels
        ([box(0)], [box(0), box(50, 0.1)], 0.5),  # without a score: the least sure
    ],
)
def test_average_precision_by_hand(truth, guess, expected):
    assert average_precision([truth], [guess], "ap50").value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shift", "found"),
    [(1, [1, 1]), (1.4, [1, 1]), (1.5, [1, 0]), (3.3, [1, 0]), (3.4, [0, 0])],  # (10 - shift) / (10 + shift) of both in common
)
def test_a_box_is_found_from_the_threshold_on(shift, found):
    assert [average_precision([[box(0)]], [[box(shift, 0.9)]], key).value for key in ("ap50", "ap75")] == pytest.approx(found)


def test_a_box_in_another_picture_is_a_mistake():
    assert average_precision([[box(0)], []], [[], [box(0, 0.9)]], "ap50").value == 0


def by_definition(truths: list[list[Box]], guesses: list[list[Box]], iou: float) -> float:
    """Average precision written out: guesses from sure to unsure, each takes the free true box it overlaps most."""
    found = []
    for name in {true.label for boxes in truths for true in boxes}:
        free = {(i, n): true for i, boxes in enumerate(truths) for n, true in enumerate(boxes) if true.label == name}
        count, hits = len(free), []
        ranked = sorted(((i, g) for i, boxes in enumerate(guesses) for g in boxes if g.label == name), key=lambda item: -item[1].score)
        for i, guess in ranked:
            place = max((key for key in free if key[0] == i), key=lambda key: guess.iou(free[key]), default=None)
            hits.append(place is not None and guess.iou(free[place]) >= iou)
            if hits[-1]:
                del free[place]
        right = np.cumsum(hits)
        recall, precision = right / count, right / np.arange(1, len(hits) + 1)
        found.append(np.mean([precision[recall >= point - 1e-12].max(initial=0) for point in np.linspace(0, 1, RECALL_POINTS)]))
    return float(np.mean(found))


def crowd(seed: int) -> tuple[list[list[Box]], list[list[Box]]]:
    """Truths of twelve pictures, and guesses: some moved, some missed, some made up, no two equally sure."""
    rng = np.random.default_rng(seed)
    sure = iter(rng.permutation(500) / 500)
    truths, guesses = [], []
    for _ in range(12):
        true = [box(float(x), name=str(rng.choice(["cat", "dog", "owl"])), side=20) for x in rng.uniform(0, 90, rng.integers(0, 5))]
        moved = [box(t.x0 + float(rng.normal(0, 4)), float(next(sure)), t.label, 20) for t in true if rng.random() < 0.8]
        made_up = [box(float(x), float(next(sure)), str(rng.choice(["cat", "dog"])), 20) for x in rng.uniform(0, 90, rng.integers(0, 3))]
        truths.append(true)
        guesses.append(moved + made_up)
    return truths, guesses


@pytest.mark.parametrize(("key", "iou"), [("ap50", 0.5), ("ap75", 0.75)])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_its_definition(seed, key, iou):
    truths, guesses = crowd(seed)
    found = average_precision(truths, guesses, key).value
    assert 0.05 < found < 0.95
    assert found == pytest.approx(by_definition(truths, guesses, iou), abs=1e-6)


def test_average_precision_has_an_interval_over_pictures():
    truths, guesses = crowd(0)
    for key, iou in (("ap50", 0.5), ("ap75", 0.75)):
        score = average_precision(truths, guesses, key)
        assert 0 < score.low < score.value < score.high < 1
        assert (score.count, score.baseline) == (12, 0)
        assert average_precision(truths, guesses, key) == score, "repeatable"
        rng = np.random.default_rng(1)
        drawn = [rng.integers(0, 12, 12) for _ in range(200)]
        others = [by_definition([truths[i] for i in rows], [guesses[i] for i in rows], iou) for rows in drawn]
        assert (score.low, score.high) == pytest.approx(np.percentile(others, [2.5, 97.5]), abs=0.05), "of this threshold"
    perfect = average_precision(truths, [[box(t.x0, 0.9, t.label, 20) for t in boxes] for boxes in truths], "ap50")
    assert (perfect.value, perfect.low, perfect.high) == (pytest.approx(1),) * 3


def test_a_missing_package_is_named_with_an_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(UsageError, match="pycocotools") as raised:
        average_precision([[box(0)]], [[box(0, 0.9)]], "ap50")
    (extra,) = re.findall(r"paligemma\[(\w+)\]", str(raised.value.hint))
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(package.startswith("pycocotools") for package in extras[extra])


@pytest.mark.parametrize(
    ("truth", "guess", "right"),
    [
        ([box(0)], [box(0, 0.9)], [1]),
        ([box(0)], [box(3, 0.9)], [1]),  # 70 of 130 square pixels in common
        ([box(0)], [box(4, 0.9)], [0]),  # 60 of 140
        ([box(0)], [box(0, 0.9, "dog")], [0]),
        ([box(0)], [box(0, 0.2), box(1, 0.9)], [1, 0]),  # the surer one finds it, the other comes too late
        ([box(0), box(4)], [box(1, 0.9), box(2, 0.8)], [1, 1]),  # each finds one
        ([], [box(0, 0.9), box(5)], [0, 0]),
        ([box(0)], [], []),
        ([], [], []),
    ],
)
def test_a_guess_is_right_when_it_finds_what_no_surer_one_found(truth, guess, right):
    scores, found = judged([truth], [guess])
    assert found.tolist() == right
    assert scores.tolist() == sorted((g.score or 0.0 for g in guess), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_guesses_are_judged_one_after_the_other(seed):
    """Written out: from sure to unsure, each takes the free true box that it overlaps most."""
    truths, guesses = crowd(seed)
    expected = []
    for truth, guess in zip(truths, guesses, strict=True):
        free = list(truth)
        for one in sorted(guess, key=lambda b: -b.score):
            best = max((t for t in free if t.label == one.label), key=one.iou, default=None)
            hit = best is not None and one.iou(best) >= 0.5
            free = [t for t in free if not (hit and t is best)]
            expected.append((one.score, float(hit)))
    scores, right = judged(truths, guesses)
    assert list(zip(scores.tolist(), right.tolist(), strict=True)) == expected


# Calibration


def honest() -> tuple[np.ndarray, np.ndarray]:
    """Ten scores, twenty of each, of which exactly the promised share is right."""
    scores = np.repeat((np.arange(10) + 0.5) / 10, 20)
    return scores, np.concatenate([np.arange(20) < 2 * k + 1 for k in range(10)]).astype(float)


def test_honest_scores_have_no_calibration_error():
    scores, right = honest()
    assert calibration_error(scores, right) == pytest.approx(0)
    assert calibration_error(np.sqrt(scores), right) > 0.1


def test_the_calibration_error_by_hand():
    scores, right = np.array([0.9, 0.2, 0.9, 0.2]), np.array([1.0, 1.0, 1.0, 0.0])
    assert calibration_error(scores, right, bins=2) == pytest.approx((abs(0.2 - 0.5) + abs(0.9 - 1)) / 2)
    assert calibration_error(scores, right, bins=1) == pytest.approx(0.75 - 0.55)
    assert calibration_error(scores[:1], right[:1]) == pytest.approx(0.1), "fewer scores than bins"
    assert calibration_error(np.array([]), np.array([])) == 0


def test_the_calibration_error_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    scores, right = rng.random(57), (rng.random(57) < 0.5).astype(float)
    order = rng.permutation(57)
    assert calibration_error(scores[order], right[order]) == pytest.approx(calibration_error(scores, right))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_logit_is_the_inverse_of_the_sigmoid_and_finite():
    x = np.linspace(-10, 10, 41)
    assert logit(sigmoid(x)) == pytest.approx(x, abs=1e-6)
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
    assert (np.diff(logit(np.array([0.0, 0.001, 0.5, 0.999, 1.0]))) > 0).all()


@pytest.mark.parametrize(("a", "b"), [(1.7, -0.6), (0.4, 1.2), (2.0, 0.0)])
def test_fitting_recovers_what_made_the_data(a, b):
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.02, 0.98, 20_000)
    right = (rng.random(20_000) < sigmoid(a * logit(scores) + b)).astype(float)
    assert fit_platt(scores, right) == pytest.approx((a, b), abs=0.08)


def test_no_other_parameters_explain_the_data_better():
    rng = np.random.default_rng(1)
    scores = rng.random(300)
    right = (rng.random(300) < scores**2).astype(float)
    a, b = fit_platt(scores, right)

    def surprise(a: float, b: float) -> float:
        p = sigmoid(a * logit(scores) + b)
        return -float(np.log(np.where(right == 1, p, 1 - p)).sum())

    others = [surprise(a + da, b + db) for da, db in itertools.product((-0.02, 0, 0.02), repeat=2) if (da, db) != (0, 0)]
    assert surprise(a, b) < min(others)


def test_fitting_makes_scores_honest():
    rng = np.random.default_rng(2)
    scores = rng.uniform(0.02, 0.98, 4000)
    right = (rng.random(4000) < sigmoid(0.5 * logit(scores) + 1)).astype(float)
    fitted = Calibration({"box": fit_platt(scores, right)})
    after = calibration_error(np.array([fitted("box", score) for score in scores]), right)
    assert after < 0.03 < 0.1 < calibration_error(scores, right)


def test_scores_that_mislead_keep_their_order():
    scores = np.linspace(0.05, 0.95, 50)
    right = (scores < 0.3).astype(float)
    a, b = fit_platt(scores, right)
    assert a == MIN_SLOPE
    fitted = sigmoid(a * logit(scores) + b)
    assert (np.diff(fitted) > 0).all()
    assert fitted.mean() == pytest.approx(right.mean(), abs=1e-3), "the best that is left is the share of right ones"


def test_no_scores_are_left_as_they_are():
    assert fit_platt(np.array([]), np.array([])) == (1, 0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=20))
def test_every_fit_is_a_calibration(judged):
    """Also of scores that tell right from wrong without a mistake, of all right, all wrong, and of 0 and 1."""
    scores, right = np.array([score for score, _ in judged]), np.array([float(hit) for _, hit in judged])
    a, b = fit_platt(scores, right)
    assert a >= MIN_SLOPE
    assert math.isfinite(a)
    assert math.isfinite(b)
