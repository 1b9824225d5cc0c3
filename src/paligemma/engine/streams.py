"""Random numbers for answers: each answer has its own stream, so that it depends neither on its neighbours in a batch nor on the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .options import Options

SHORT = 1 - 2**-22
"""A drawn point is this share of the way to the total that it might be: so whatever rounding did, no token of probability zero is drawn."""
_STRIDE = 0x9E3779B97F4A7C15
"""Keeps the copies' seeds apart for any two seeds a user would write."""


def streams(options: Options, prompts: int, entropy: Callable[[], int]) -> list[np.random.Generator | None]:
    """One for each of `prompts * options.best_of` answers, a prompt's copies side by side; None where nothing is left to chance.

    With a seed, copy c of every prompt draws the same numbers in every batch; without one, seeds come from `entropy`.
    """
    if options.temperature == 0:
        return [None] * (prompts * options.best_of)
    if options.seed is None:
        seeds = [entropy() for _ in range(prompts * options.best_of)]
    else:
        seeds = [(options.seed + copy * _STRIDE) % 2**63 for _ in range(prompts) for copy in range(options.best_of)]
    return [np.random.default_rng(seed) for seed in seeds]
