"""Sorted unions of ranges, and the rows that are computed for them."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.engine.candidates import candidates, merge
from paligemma.engine.options import Only
from tests import tiny

RANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 90)).map(lambda t: range(t[0], min(sum(t), 211))), min_size=1, max_size=6)


@given(RANGES)
def test_merged_ranges_hold_the_same_ids(ranges):
    merged = merge(ranges)
    assert sorted(set().union(*ranges)) == [id for r in merged for id in r]
    assert all(a.stop < b.start for a, b in itertools.pairwise(merged))


@settings(deadline=None)
@given(st.lists(st.none() | RANGES.map(merge), min_size=1, max_size=3))
def test_candidates_are_the_full_logits_where_allowed(allowed):
    model = MODEL
    hidden = torch.randn(len(allowed), model.config.text.width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        full = model.logits(hidden)
        found = candidates(model, hidden, [None if a is None else Only(tuple(a)) for a in allowed], range(100, 164))
    spread = torch.full_like(full, float("-inf"))
    spread[:, found.token(torch.arange(found.logits.shape[1]))] = found.logits
    for row, ranges in enumerate(allowed):
        inside = torch.zeros(full.shape[1], dtype=torch.bool)
        for r in [range(full.shape[1])] if ranges is None else ranges:
            inside[r.start : r.stop] = True
        torch.testing.assert_close(spread[row][inside], full[row][inside])
        assert spread[row][~inside].isneginf().all()
    columns = found.token(torch.arange(found.logits.shape[1]))
    assert columns[found.loc].tolist() == [id for id in columns.tolist() if 100 <= id < 164]


MODEL = tiny.random_model(tiny.TINY_1)
