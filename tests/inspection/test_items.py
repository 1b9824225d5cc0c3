"""Which records are looked at, and that draws are repeatable."""

import itertools

import pytest

from paligemma.data.lessons import MOST_CLASSES
from paligemma.inspection.items import evenly

from .making import found, items, told


@pytest.mark.parametrize(("count", "limit"), [(10, 3), (10, 10), (3, 10), (1000, 7), (5, 0), (0, 4)])
def test_evenly_drawn_ones_are_spread_over_all(count: int, limit: int):
    drawn = [item.number for item in evenly(items(*(told(i, "p", "a") for i in range(count))), limit)]
    assert len(drawn) == min(count, limit)
    assert drawn == sorted(set(drawn))
    gaps = [b - a for a, b in itertools.pairwise(drawn)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_an_items_draws_depend_on_its_number_only():
    one, other = items(told(0, "p", "a"), told(1, "p", "a"))
    assert one.rng().integers(1 << 30) == one.rng().integers(1 << 30)
    assert one.rng().integers(1 << 30) != other.rng().integers(1 << 30)


def test_names_are_drawn_where_there_are_too_many_for_a_prompt():
    many = tuple(f"c{i}" for i in range(MOST_CLASSES + 1))
    assert items(found(1), classes=many)[0].names_are_drawn
    assert not items(found(1), classes=many[1:])[0].names_are_drawn
    assert not items(found(1, asked=("c1",)), classes=many)[0].names_are_drawn
