"""Scores by hand; calibration keeps the order."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.engine.options import Generation
from paligemma.engine.scores import Calibration, box_score, mask_score, text_score
from paligemma.errors import CheckpointError
from paligemma.tasks.detect import Found

SEPARATOR = 9
LOCS = (101, 102, 103, 104)
BINS = (1, 2, 3, 4)


def separates(id: int) -> bool:
    return id == SEPARATOR


def test_scores_by_hand():
    """Two objects: a box with a label of one token; a separator of two tokens; a box with two codes and a label of two tokens."""
    ids = (*LOCS, 5, SEPARATOR, 3, *LOCS, 165, 166, 6, 7)
    probs = (0.4, 0.5, 0.5, 0.5, 0.9, 0.7, 0.9, 0.8, 0.8, 0.8, 0.8, 0.25, 0.64, 0.5, 0.6)
    generation = Generation(ids, probs, (0.8, *[1.0] * 14), -3.0, "eos")
    first, second = Found("a", BINS, None, 0, 4, 5), Found("b", BINS, (1, 2), 7, 13, 15)
    assert box_score(generation, first, separates) == pytest.approx(0.8 * 0.9 * 0.5)  # 0.4 given that a location comes is 0.5
    assert box_score(generation, second, separates) == pytest.approx(0.7 * 0.9 * 0.5 * 0.6 * 0.8)
    assert mask_score(generation, second, separates) == pytest.approx(0.7 * 0.9 * 0.5 * 0.6 * 0.8 * 0.4)
    assert text_score(generation) == pytest.approx(math.exp(-3.0 / 16))
    assert text_score(Generation((), (), (), 0.0, "grammar")) == 1.0


@pytest.mark.parametrize(
    ("ids", "factor"),
    [
        (LOCS, 1.0),
        ((SEPARATOR, *LOCS), 0.5),
        ((SEPARATOR, 3, *LOCS), 0.25),
        ((5, *LOCS), 1.0),  # words that stand before the first object belong to nothing
        ((SEPARATOR, 5, 6, *LOCS), 1.0),
        ((*LOCS, *LOCS), 1.0),
    ],
)
def test_the_separator_before_an_object_counts(ids, factor):
    generation = Generation(ids, tuple(1.0 if id in LOCS else 0.5 for id in ids), (1.0,) * len(ids), 0.0, "eos")
    found = Found("", BINS, None, len(ids) - 4, len(ids), len(ids))
    assert box_score(generation, found, separates) == pytest.approx(factor)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 5), st.floats(-3, 3))
def test_calibration_keeps_order_and_range(low, high, a, b):
    calibrated = Calibration({"box": (a, b)})
    low, high = sorted([low, high])
    assert 0 <= calibrated("box", low) <= calibrated("box", high) <= 1
    assert calibrated("mask", low) == low


def test_calibration_file(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"box": {"a": 1, "b": 0}}))
    assert Calibration.load(path)("box", 0.3) == pytest.approx(0.3)
    for text in (
        "[]",
        "{",
        '{"box": 3}',
        '{"box": {"a": 1}}',
        '{"box": {"a": -1, "b": 0}}',
        '{"box": {"a": 1, "b": NaN}}',
        '{"box": {"a": "x", "b": 0}}',
        f'{{"box": {{"a": 1, "b": {"9" * 400}}}}}',
        f'{{"box": {{"a": 1, "b": {"9" * 5000}}}}}',
        "[" * 60_000,
        '{"box": ' * 8_000,
        json.dumps({"box": {"a": 1, "b": 0}}) + " " * (64 << 10),
        "\udcff",
    ):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(CheckpointError, match=r"calibration\.json"):
            Calibration.load(path)


@pytest.mark.parametrize(
    ("kind", "hint"), [("boxes", "did you mean 'box'?"), ("Mask", "did you mean 'mask'?"), ("x\x1b", "known kinds: text")]
)
def test_a_kind_that_no_score_is_of_is_refused(tmp_path, kind, hint):
    """It would be read and never used."""
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"box": {"a": 1, "b": 0}, kind: {"a": 1, "b": 0}}))
    with pytest.raises(CheckpointError) as caught:
        Calibration.load(path)
    assert ascii(kind) in caught.value.message
    assert hint in (caught.value.hint or "")
