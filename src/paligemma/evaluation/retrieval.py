"""How well similar vectors find each other: recall at k and the median rank, from matrices of similarity. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UsageError


def ranks(similarity: np.ndarray, right: Sequence[Sequence[int] | int] | None = None) -> np.ndarray:
    """(queries, candidates), higher is more alike -> at which place, from 1 on, each query finds its first right candidate.

    `right`: the right candidate of each query, or several of which one is enough (COCO has five captions a picture); None: the one of the
    same number. Candidates that are as similar as the right one stand before it, so that a model that finds all alike gains nothing.
    Raises `UsageError` for a matrix that is none, numbers that are none, or a query without a right candidate.
    """
    similarity = np.asarray(similarity, float)
    if similarity.ndim != 2 or not similarity.size:
        raise UsageError(f"expected similarities (queries, candidates), found an array of shape {similarity.shape}")
    if np.isnan(similarity).any():
        raise UsageError("a similarity is no number (NaN)")
    queries, candidates = similarity.shape
    if right is None:
        if queries > candidates:
            raise UsageError(f"{queries} queries have no candidate of the same number among {candidates}", hint="say which are right")
        right = range(queries)
    if len(right) != queries:
        raise UsageError(f"{len(right)} right candidates for {queries} queries")
    places = np.empty(queries, int)
    for query, wanted in enumerate(right):
        found = np.atleast_1d(np.asarray(wanted, int))
        if not found.size or found.min() < 0 or found.max() >= candidates:
            raise UsageError(f"query {query} has no right candidate among {candidates}, found {wanted!r}")
        wrong = np.delete(similarity[query], found)
        places[query] = 1 + int((wrong >= similarity[query, found].max()).sum())
    return places


def recall_at(k: int, places: np.ndarray) -> float:
    """Share of queries that find a right candidate among the first `k`."""
    return float((np.asarray(places) <= k).mean())


def median_rank(places: np.ndarray) -> float:
    return float(np.median(places))


def retrieval_scores(similarity: np.ndarray, right: Sequence[Sequence[int] | int] | None = None) -> dict[str, float]:
    """Recall at 1, 5 and 10 and the median rank; see `ranks`."""
    places = ranks(similarity, right)
    return {f"recall@{k}": recall_at(k, places) for k in (1, 5, 10)} | {"median_rank": median_rank(places)}
