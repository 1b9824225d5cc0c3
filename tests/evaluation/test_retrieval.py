"""Ranks: by sorting, by hand, and against models that find everything alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.errors import UsageError
from paligemma.evaluation.retrieval import median_rank, ranks, recall_at, retrieval_scores


@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 99))
def test_ranks_are_places_when_sorted(queries, more, seed):
    similarity = np.random.default_rng(seed).random((queries, queries + more))
    by_sorting = [1 + np.argsort(-row).tolist().index(i) for i, row in enumerate(similarity)]
    assert ranks(similarity).tolist() == by_sorting
    order = np.random.default_rng(seed).permutation(queries)
    assert ranks(similarity[order], order.tolist()).tolist() == np.array(by_sorting)[order].tolist()


def test_one_of_several_right_ones_is_enough():
    similarity = np.array([[0.1, 0.9, 0.5, 0.3], [0.9, 0.2, 0.1, 0.1]])
    assert ranks(similarity, [[0, 2], [1, 3]]).tolist() == [2, 2]
    assert retrieval_scores(similarity, [[0, 2], [0]]) == {"recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0, "median_rank": 1.5}


def test_a_model_that_finds_all_alike_gains_nothing():
    places = ranks(np.zeros((4, 9)))
    assert places.tolist() == [9] * 4
    assert recall_at(1, places) == 0
    assert median_rank(places) == 9


@pytest.mark.parametrize(
    ("similarity", "right", "words"),
    [
        (np.zeros(3), None, "shape"),
        (np.zeros((0, 3)), None, "shape"),
        (np.full((1, 1), np.nan), None, "NaN"),
        (np.zeros((3, 2)), None, "no candidate of the same number"),
        (np.zeros((2, 2)), [0], "1 right candidates for 2 queries"),
        (np.zeros((1, 2)), [[]], "query 0 has no right candidate"),
        (np.zeros((1, 2)), [2], "query 0"),
        (np.zeros((1, 2)), [-1], "query 0"),
    ],
)
def test_what_is_wrong_is_said(similarity, right, words):
    with pytest.raises(UsageError, match=words):
        ranks(similarity, right)
