from __future__ import annotations

import pytest

from paligemma.labelling.doubt import NOTHING, doubt


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.5], 1), ([1.0], 0), ([0.0], 0), ([0.9, 0.99], 0.2), ([0.1], 0.2), ([0.99, 0.4, 0.02], 0.8), ([None, 1.0], 1), ([], NOTHING)],
)
def test_the_box_nearest_to_an_even_chance_counts(scores, expected):
    assert doubt(scores) == pytest.approx(expected)


def test_nothing_found_stands_between_sure_and_unsure():
    assert doubt([0.95]) < doubt([]) < doubt([0.6])
