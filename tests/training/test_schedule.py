"""Schedules: their values written out, and what must hold of all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.training.schedule import Schedule


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule("constant", 4), [1, 1, 1, 1]),
        (Schedule("constant", 6, warmup=2), [0, 0.5, 1, 1, 1, 1]),
        (Schedule("cosine", 4), [1, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0.5 - 0.5 * math.cos(math.pi / 4), 0]),
        (Schedule("cosine", 6, warmup=2), [0, 0.5, 1, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5]),
        (Schedule("rsqrt", 9, timescale=3), [1, 3**0.5 / 2, (3 / 5) ** 0.5, 0.5**0.5]),
        (Schedule("rsqrt", 9, warmup=2, timescale=3), [0, 0.5, 1, 3**0.5 / 2]),
        # The rise of a later stage ends where the earlier one left off.
        (Schedule("rsqrt", 9, warmup=1, start=9, timescale=3), [0, 0.5, (3 / 13) ** 0.5]),
        (Schedule("constant", 9, warmup=2, slow_start=4), [0, 0.5 * 0.25, 0.5, 0.75, 1, 1]),
        (Schedule("constant", 9, slow_start=2), [0, 0.5, 1]),
        (Schedule("cosine", 1), [1]),
    ],
)
def test_factors(schedule, factors):
    assert [schedule(step) for step in range(len(factors))] == pytest.approx(factors, abs=1e-12)


def test_a_stage_goes_on_where_the_one_before_ended():
    one = Schedule("rsqrt", 100, timescale=30)
    two = Schedule("rsqrt", 100, start=60, timescale=30)
    assert [two(step) for step in range(40)] == pytest.approx([one(60 + step) for step in range(40)])


@given(
    st.sampled_from(["cosine", "rsqrt", "constant"]),
    st.integers(1, 10**9),
    st.floats(0, 0.99),
    st.floats(0, 1),
    st.integers(0, 10**6),
    st.integers(1, 10**5),
    st.integers(0, 10**9),
)
def test_any_factor_is_a_share(shape, steps, warmup, slow, start, timescale, step):
    schedule = Schedule(shape, steps, int(warmup * steps), start, timescale, int(slow * steps))
    assert 0 <= schedule(step) <= 1
    if shape == "cosine" and step >= steps:
        assert schedule(step) == pytest.approx(0, abs=1e-12)
