"""Reliability by hand; a fit finds what spoilt the scores, helps on what it has not seen, and adds to what was there before."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.engine.scores import Calibration
from paligemma.errors import CheckpointError, UsageError
from paligemma.evaluation.calibration import (
    MIN_SLOPE,
    calibration_error,
    fit_calibration,
    fit_platt,
    fit_temperature,
    log_loss,
    logit,
    reliability,
    save_calibration,
)
from paligemma.evaluation.places import Judged


def spoilt(count: int, a: float, b: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that Platt's a and b would make honest, and what was right."""
    rng = np.random.default_rng(seed)
    honest = rng.uniform(0.05, 0.95, count)
    return 1 / (1 + np.exp(-(logit(honest) - b) / a)), (rng.random(count) < honest).astype(float)


def judged(count: int, a: float, b: float, seed: int = 0, each: int = 1) -> list[Judged]:
    """`each`: guesses a record."""
    scores, right = spoilt(count, a, b, seed)
    return [Judged(row // each, float(s), float(r)) for row, (s, r) in enumerate(zip(scores, right, strict=True))]


def test_reliability_by_hand():
    scores, right = np.array([0.2, 0.9, 0.8, 0.3]), np.array([0.0, 1.0, 0.0, 1.0])
    found = reliability(scores, right, bins=2)
    assert [(one.score, one.right, one.count) for one in found.bins] == [(0.25, 0.5, 2), (pytest.approx(0.85), 0.5, 2)]
    assert found.ece == calibration_error(scores, right, 2) == pytest.approx((0.25 + 0.35) / 2)
    assert found.log_loss == pytest.approx(-np.mean([np.log(0.8), np.log(0.9), np.log(0.2), np.log(0.3)]))
    assert log_loss(np.array([1.0]), np.array([0.0])) < 14, "finite also where the model was sure and wrong"


def test_no_scores():
    found = reliability(np.zeros(0), np.zeros(0))
    assert (found.bins, found.ece, found.log_loss, found.count) == ((), 0, 0, 0)
    assert fit_temperature(np.zeros(0), np.zeros(0)) == 1
    assert fit_platt(np.zeros(0), np.zeros(0)) == (1, 0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_a_fit_never_turns_the_order_round_and_errors_are_shares(pairs):
    scores, right = np.array([s for s, _ in pairs]), np.array([float(r) for _, r in pairs])
    assert 0 <= calibration_error(scores, right) <= 1
    assert fit_platt(scores, right)[0] >= MIN_SLOPE
    assert fit_temperature(scores, right) >= MIN_SLOPE


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.0), (2.0, 0.0), (1.5, 1.0), (0.4, -0.7)])
def test_a_fit_finds_what_spoilt_the_scores(a, b):
    scores, right = spoilt(40_000, a, b)
    assert fit_platt(scores, right) == pytest.approx((a, b), abs=0.05)
    if b == 0:
        assert fit_temperature(scores, right) == pytest.approx(a, abs=0.05)


def test_scores_become_frequencies_on_records_the_fit_has_not_seen():
    fitted = fit_calibration({"box": judged(4000, 0.4, 1.0)}, [f"{n}.png" for n in range(4000)])
    fit = fitted.fits["box"]
    assert fit.before.ece > 0.15
    assert fit.after.ece < 0.04
    assert fit.after.log_loss < fit.before.log_loss
    assert fit.fitted_on == fit.after.count == 2000
    score = fitted.calibration("box", 0.5)
    assert score == pytest.approx(1 / (1 + np.exp(-fit.b)))
    assert "ECE" in str(fitted)
    assert json.dumps(fitted.to_dict())


def test_the_bias_comes_only_where_it_helps():
    plain = [fit_calibration({"text": judged(1000, 0.5, 0.0, seed)}, list(range(1000))).fits["text"].b == 0 for seed in range(8)]
    assert sum(plain) >= 4, "most often a temperature will do"
    assert fit_calibration({"text": judged(6000, 1.0, 1.5)}, list(range(6000))).fits["text"].b == pytest.approx(1.5, abs=0.3)


def test_one_pictures_guesses_stay_on_one_side():
    pictures = [f"{row // 5}.png" for row in range(200)]
    fit = fit_calibration({"box": judged(1000, 1, 0, each=5)}, pictures).fits["box"]
    assert (fit.fitted_on, fit.after.count) == (500, 500)


def test_a_fit_contains_the_calibration_that_was_in_force():
    raw, right = spoilt(4000, 0.5, 0.8)
    base = Calibration({"text": (1.7, -0.6)})
    seen = [Judged(row, base("text", float(s)), float(r)) for row, (s, r) in enumerate(zip(raw, right, strict=True))]
    plain = [Judged(row, float(s), float(r)) for row, (s, r) in enumerate(zip(raw, right, strict=True))]
    on_top = fit_calibration({"text": seen}, list(range(4000)), base).fits["text"]
    alone = fit_calibration({"text": plain}, list(range(4000))).fits["text"]
    assert (on_top.a, on_top.b) == pytest.approx((alone.a, alone.b), abs=0.02)


def test_too_few_guesses_are_said():
    fitted = fit_calibration({"mask": judged(100, 1, 0), "box": judged(10, 1, 0)}, list(range(100)))
    assert (set(fitted.fits), fitted.skipped) == ({"mask"}, {"box": 10})
    assert "box scores: only 10 guesses, not fitted" in str(fitted)
    with pytest.raises(UsageError, match="found 10 box scores"):
        fit_calibration({"box": judged(10, 1, 0)}, list(range(10)))
    with pytest.raises(UsageError, match="found none"):
        fit_calibration({}, [])


def test_the_file_is_what_a_model_reads(tmp_path):
    (tmp_path / "calibration.json").write_text('{"box": {"a": 2, "b": 1}, "text": {"a": 1, "b": 0}}')
    path = save_calibration(Calibration({"text": (1.5, -0.5)}), tmp_path)
    assert Calibration.load(path).parameters == {"box": (2.0, 1.0), "text": (1.5, -0.5)}
    assert [file.name for file in tmp_path.iterdir()] == ["calibration.json"]
    path.write_text("{")
    with pytest.raises(CheckpointError):
        save_calibration(Calibration({"text": (1.5, -0.5)}), tmp_path)
