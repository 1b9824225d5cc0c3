"""How far a score may be off for having been measured on these pictures and not on others: bootstrap intervals. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

RESAMPLES = 1000
COSTLY_RESAMPLES = 200
"""Of a statistic that is more than a mean."""
COVERAGE = 95.0
"""Per cent."""
SEED = 0


def clusters(keys: Sequence[Hashable]) -> list[np.ndarray]:
    """The numbers of the rows of each key. What is asked about one picture is right or wrong together, so pictures are drawn, not rows."""
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return [np.array(each) for each in rows.values()]


def bootstrap(
    drawn: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float], *, resamples: int = COSTLY_RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The interval that holds 95 % of what `statistic` says of as many clusters as there are, drawn with repetition; it gets their rows.

    The same seed gives the same interval. Fewer than two clusters say nothing about others: both ends are the statistic itself.
    """
    if len(drawn) < 2:
        value = statistic(np.concatenate(drawn) if len(drawn) else np.arange(0))
        return value, value
    rng = np.random.default_rng(seed)
    return _middle([statistic(np.concatenate([drawn[i] for i in rng.integers(0, len(drawn), len(drawn))])) for _ in range(resamples)])


def mean_interval(drawn: Sequence[np.ndarray], values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> tuple[float, float]:
    """As `bootstrap`, of the mean of `values`, one a row; much faster."""
    if len(drawn) < 2:
        return float(values.mean()), float(values.mean())
    sums, counts = np.array([values[rows].sum() for rows in drawn]), np.array([len(rows) for rows in drawn])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(drawn), len(drawn)) for _ in range(resamples))
    return _middle([sums[draw].sum() / counts[draw].sum() for draw in draws])


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2])
    return float(low), float(high)
