"""Scores by hand, spans as a table, calibration keeps the order."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.engine.options import Generation
from paligemma.engine.scores import Calibration, box_score, mask_score, spans, text_score
from paligemma.errors import CheckpointError

LOC, SEG, SEPARATOR = range(100, 164), range(164, 180), {9}


def read(ids):
    """Spans as text: the tokens of each part."""
    found = spans(ids, LOC, SEG, SEPARATOR)
    return [tuple([ids[i] for i in part] for part in (s.before, s.coords, s.codes, s.label)) for s in found]


@pytest.mark.parametrize(
    ("ids", "objects"),
    [
        ([], []),
        ([5, 6], []),
        ([101, 102, 103], []),
        ([101, 102, 103, 104, 5], [([], [101, 102, 103, 104], [], [5])]),
        (
            [101, 102, 103, 104, 5, 6, 9, 3, 105, 106, 107, 108, 7],
            [([], [101, 102, 103, 104], [], [5, 6]), ([9, 3], [105, 106, 107, 108], [], [7])],
        ),
        ([101, 102, 103, 104, 165, 166, 5, 9], [([], [101, 102, 103, 104], [165, 166], [5])]),
        ([4, 101, 102, 103, 104], [([], [101, 102, 103, 104], [], [])]),  # words before the first box belong to nothing
        ([101, 102, 5, 9, 101, 102, 103, 104, 5], [([], [101, 102, 103, 104], [], [5])]),  # half a box does too
        ([101, 102, 103, 104, 105, 106, 107, 108], [([], [101, 102, 103, 104], [], []), ([], [105, 106, 107, 108], [], [])]),
    ],
)
def test_spans(ids, objects):
    assert read(ids) == objects


@given(st.lists(st.integers(0, 200), max_size=60))
def test_spans_of_any_answer_are_in_order_and_apart(ids):
    end = 0
    for span in spans(ids, LOC, SEG, SEPARATOR):
        assert end <= span.coords.start
        assert len(span.coords) == 4
        assert span.coords.stop == span.codes.start
        assert span.codes.stop == span.label.start
        assert not span.before or span.before.stop == span.coords.start
        end = span.label.stop


def test_scores_by_hand():
    ids = (101, 102, 103, 104, 5, 9, 105, 106, 107, 108, 165, 166, 6, 7)
    probs = (0.4, 0.5, 0.5, 0.5, 0.9, 0.7, 0.8, 0.8, 0.8, 0.8, 0.25, 0.64, 0.5, 0.6)
    kinds = (0.8, *[1.0] * 13)
    first, second = spans(ids, LOC, SEG, SEPARATOR)
    generation = Generation(ids, probs, kinds, -3.0, "eos")
    assert box_score(generation, first) == pytest.approx(0.8 * 0.9 * 0.5)
    assert box_score(generation, second) == pytest.approx(0.7 * 0.5 * 0.6 * 0.8)
    assert mask_score(generation, second) == pytest.approx(0.7 * 0.5 * 0.6 * 0.8 * 0.4)
    assert text_score(generation) == pytest.approx(math.exp(-3.0 / 15))
    assert text_score(Generation((), (), (), 0.0, "grammar")) == 1.0


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
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"calibration\.json"):
            Calibration.load(path)
