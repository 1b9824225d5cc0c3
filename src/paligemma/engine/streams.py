"""Random numbers for answers: each answer has its own stream, so that it depends neither on its neighbours in a batch nor on the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .options import Options

SHORT = 1 - 2**-22
"""A drawn point is this share of the way to the total that it might be: so whatever rounding did, no token of probability zero is drawn."""
_STRIDE = 0x9E3779B97F4A7C15
"""Keeps the copies' seeds apart for any two seeds a user would write."""


class Streams:
    """One for each of `prompts * options.best_of` answers. With a seed, copy c of every prompt draws the same numbers in every batch;
    without one, seeds come from `entropy`."""

    def __init__(self, options: Options, prompts: int, entropy: Callable[[], int]):
        self.streams: list[np.random.Generator] = []
        if options.temperature > 0:
            copies = range(options.best_of)
            if options.seed is None:
                seeds = [entropy() for _ in range(prompts * options.best_of)]
            else:
                seeds = [(options.seed + copy * _STRIDE) % 2**63 for _ in range(prompts) for copy in copies]
            self.streams = [np.random.default_rng(seed) for seed in seeds]

    def draw(self, answers: Sequence[int]) -> list[float]:
        """A number from [0, 1) for each of the answers, by their numbers; none where nothing is left to chance."""
        return [float(self.streams[answer].random(dtype=np.float32)) for answer in answers] if self.streams else []
