"""Learning rate over a run: pure functions of the step. Every factor lies in [0, 1] and multiplies a recipe's learning rate.

A warm-up rises in a straight line from 0 at the first step; then

    cosine     falls to 0 at the end of the run
    rsqrt      1 / sqrt(1 + (steps since the warm-up + `start`) / `timescale`): no end is needed, so stages of a pretraining share it
    constant   stays

and weight decay follows the same factor. Source: big_vision `utils.py` (`create_learning_rate_schedule`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["cosine", "rsqrt", "constant"]


@dataclass(frozen=True)
class Schedule:
    """`schedule(step)` for step 0, 1, ... `steps` - 1: the factor of the update that is made then.

    `start`: steps of earlier stages, which `rsqrt` counts on from. `timescale`: steps after which it has fallen to 0.71.
    `slow_start`: steps of a second, slower straight rise on top, for parts that must not change quickly at first; 0 for none.
    """

    shape: Shape
    steps: int
    warmup: int = 0
    start: int = 0
    timescale: int = 10_000
    slow_start: int = 0

    def __call__(self, step: int) -> float:
        factor = self._decay(step)
        for rise in (self.warmup, self.slow_start):
            if step < rise:
                factor *= step / rise
        return factor

    def _decay(self, step: int) -> float:
        since = max(step - self.warmup, 0)
        if self.shape == "cosine":
            return 0.5 + 0.5 * math.cos(math.pi * min(since / max(self.steps - self.warmup, 1), 1.0))
        if self.shape == "rsqrt":
            return (1 + (since + self.start) / self.timescale) ** -0.5
        return 1.0
