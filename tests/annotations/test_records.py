"""A part of many records is spread over all of them."""

import itertools

import pytest

from paligemma.data.records import evenly


@pytest.mark.parametrize(("count", "limit"), [(10, 3), (10, 10), (3, 10), (1000, 7), (5, 0), (0, 4), (4, None)])
def test_a_part_is_spread_over_all(count: int, limit: int | None):
    drawn = evenly(range(count), limit)
    assert len(drawn) == (count if limit is None else min(count, limit))
    assert drawn == sorted(set(drawn))
    gaps = [b - a for a, b in itertools.pairwise(drawn)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
